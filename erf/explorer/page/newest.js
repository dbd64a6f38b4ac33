/** One job at a time. @template T */
export class Newest {
  /**
   * @param {(job: T, current: () => boolean) => Promise<void>} work asks current() whether its result is still wanted
   * @param {() => void} rest called when nothing is left to do
   */
  constructor(work, rest) {
    this.work = work;
    this.rest = rest;
    this.turn = 0;
    this.running = false;
    /** @type {T | null} */
    this.waiting = null;
  }

  /**
   * A patient job waits for the running one, so that a drag shows fields on its way; only the newest one waits.
   *
   * @param {T} job
   * @param {boolean} patient
   */
  push(job, patient) {
    this.waiting = patient && this.running ? job : null;
    if (!this.waiting) void this.start(job);
  }

  cancel() {
    this.turn += 1;
    this.running = false;
    this.waiting = null;
  }

  /** @param {T} job */
  async start(job) {
    this.turn += 1;
    const turn = this.turn;
    this.running = true;
    await this.work(job, () => turn === this.turn);
    if (turn !== this.turn) return;
    this.running = false;
    const next = this.waiting;
    this.waiting = null;
    if (next) void this.start(next);
    else this.rest();
  }
}
