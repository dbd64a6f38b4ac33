import { Failure, post } from "./api.js";
import { fieldOf, storedField } from "./field.js";
import { Newest } from "./newest.js";
import { Picture } from "./picture.js";
import { unitAt } from "./target.js";
/** @import { FieldReply, StoredFile } from "./types.js" */
/** @import { Field } from "./field.js" */
/** @import { Pane } from "./pane.js" */

/** @typedef {{path: string, body: object, frame: [number, number]}} Job */

const HINT_AFTER = 150;
const REFINE_AFTER = 120;
/** Seconds after which the comparison of a field is asked for, which the server makes when nothing else is to do. */
const CHECKS_AFTER = [4, 8, 16, 32];

/** Image and field of a pane, fetched as its state asks for them. */
export class Contents {
  /** @param {Pane} pane */
  constructor(pane) {
    this.pane = pane;
    this.app = pane.app;
    /** Tells the requests of this pane from those of others, of which none replaces another. */
    this.client = crypto.getRandomValues(new Uint32Array(2)).join("");
    /** @type {Picture | null} */
    this.picture = null;
    this.pictureKey = "";
    /** @type {Field | null} */
    this.field = null;
    this.fieldKey = "";
    this.refining = 0;
    /** Whether a comparison with the plain computation may still come. */
    this.checking = false;
    /** What takes its time. @type {Set<string[]>} */
    this.jobs = new Set();
    /** @type {Newest<Job>} */
    this.requests = new Newest(
      (job, current) => this.compute(job, current),
      () => pane.changed(),
    );
  }

  /** Whether numbers are on their way. */
  get waits() {
    return this.requests.running || Boolean(this.field && !this.field.projective && !this.field.numbers);
  }

  sync() {
    this.syncPicture();
    if (this.pane.file) this.syncStored(this.pane.file);
    else this.syncField();
  }

  syncPicture() {
    const { file, network, state } = this.pane;
    const { source, image, subset, input } = state;
    const key = `${source} ${image} ${file ? subset : input}`;
    if (key === this.pictureKey) return;
    this.pictureKey = key;
    this.field = null;
    this.fieldKey = "";
    this.picture = file
      ? new Picture(`api/files/${file.id}/background`, { subset, image: image < 0 ? null : file.images[image].id })
      : new Picture(`api/images/${image}/pixels`, { network: network?.id ?? 0, input: input || null });
    void this.loadPicture(this.picture);
  }

  /**
   * Coarse first, then what the zoom needs, then the values at the cursor.
   *
   * @param {Picture} picture
   */
  async loadPicture(picture) {
    const { file, level } = this.pane;
    const done = this.hint("loading the image");
    try {
      for (const wanted of file ? [0] : [picture.coarsest, level, 0]) {
        await picture.load(Math.min(wanted, picture.coarsest));
        if (picture !== this.picture) return;
        this.pane.changed();
        if (wanted <= level) done();
      }
    } catch (error) {
      // A file may well hold no images.
      const lacks = file && error instanceof Failure && error.status === 404;
      if (picture === this.picture && !lacks) this.app.fail(error);
    } finally {
      done();
    }
  }

  /** @param {StoredFile} file */
  syncStored(file) {
    const { source, subset, definition, image } = this.pane.state;
    const key = JSON.stringify([source, subset, definition, image]);
    if (key === this.fieldKey) return;
    this.fieldKey = key;
    this.requests.cancel();
    const field = storedField(file, this.pane.state);
    void this.show(field, () => key === this.fieldKey).catch((error) => this.app.fail(error));
  }

  /** @returns {{path: string, body: object} | null} */
  request() {
    const { network, state } = this.pane;
    const { at, image, layer, channel, definition, input } = state;
    if (!at || !network) return null;
    const channels = channel === "all" || channel === "signs" ? channel : Number(channel);
    const common = { network: network.id, image, layer, channel: channels, input };
    if (at.kind === "projective") return { path: "api/projective", body: { ...common, y: at.y, x: at.x } };
    // A drag within the reach of one unit asks once.
    const unit = unitAt(this.pane, at);
    return { path: "api/fields", body: { ...common, ...(unit ? { unit } : { y: at.y, x: at.x }), definition } };
  }

  syncField() {
    const asked = this.request();
    const { live, drag } = this.app;
    const key = JSON.stringify(asked);
    if (key === this.fieldKey) {
      if (!live && this.field && !this.requests.running) void this.finish(this.field);
      return;
    }
    this.fieldKey = key;
    if (!asked) {
      this.requests.cancel();
      this.field = null;
      return;
    }
    const body = { ...asked.body, client: this.client };
    this.requests.push({ path: asked.path, body, frame: this.pane.frame }, drag === "move");
  }

  /** @param {Job} job @param {() => boolean} current */
  async compute(job, current) {
    const done = this.hint("computing");
    const sent = performance.now();
    try {
      const reply = /** @type {FieldReply} */ (await post(job.path, job.body));
      if (!current()) return;
      this.app.messages.clear();
      await this.show(fieldOf(reply, job.frame), current);
      if (current() && !this.requests.waiting) this.fieldKey = JSON.stringify(this.request());
      this.app.timing(performance.now() - sent);
    } catch (error) {
      if (!current() || (error instanceof Failure && error.superseded)) return;
      this.field = null;
      this.pane.changed();
      this.app.fail(error);
    } finally {
      done();
    }
  }

  /** @param {Field} field @param {() => boolean} current */
  async show(field, current) {
    await field.load(this.pane.level + 1);
    if (!current()) return;
    this.field = field;
    this.pane.changed();
    if (!this.app.live) void this.finish(field);
  }

  /**
   * The finer map and the numbers, once a drag has ended.
   *
   * @param {Field} field
   */
  async finish(field) {
    if (field.complete) return;
    field.complete = true;
    try {
      await field.load(this.pane.level);
      if (field !== this.field) return;
      this.pane.changed();
      await field.loadNumbers();
    } catch (error) {
      this.app.fail(error);
    }
    if (field !== this.field) return;
    this.pane.changed();
    this.app.announce(this.pane.sentence());
    void this.awaitCheck(field);
  }

  /** @param {Field} field */
  async awaitCheck(field) {
    this.checking = Boolean(field.reply && field.numbers && !field.numbers.check);
    this.pane.changed();
    for (const seconds of this.checking ? CHECKS_AFTER : []) {
      await new Promise((resolve) => setTimeout(resolve, 1000 * seconds));
      if (field !== this.field) return;
      // The server may be gone, or have forgotten the field: only the comparison is missing then.
      if (await field.loadCheck().catch(() => true)) break;
    }
    if (field !== this.field) return;
    this.checking = false;
    this.pane.changed();
    // The layer is computed plainly from now on, and so should be what is shown.
    if (field.refuted && !this.requests.running && !this.app.live) {
      this.fieldKey = "";
      this.syncField();
    }
  }

  /** Fetch the level that a new zoom needs. */
  refine() {
    clearTimeout(this.refining);
    const { field } = this;
    const { level } = this.pane;
    if (this.app.live || !field || field.projective || field.levels.has(level)) return;
    this.refining = setTimeout(() => {
      field.load(level).then(
        () => field === this.field && this.pane.changed(),
        (error) => this.app.fail(error),
      );
    }, REFINE_AFTER);
  }

  /** A click after a failure tries again. */
  retry() {
    if (!this.field) this.fieldKey = "";
  }

  /**
   * A hint while something takes longer than an instant.
   *
   * @param {string} words
   * @returns {() => void} ends it
   */
  hint(words) {
    const job = [words];
    const show = () => this.pane.showBusy([...this.jobs].flat());
    const timer = setTimeout(() => {
      this.jobs.add(job);
      show();
    }, HINT_AFTER);
    return () => {
      clearTimeout(timer);
      this.jobs.delete(job);
      show();
    };
  }
}
