import { readState, writeState } from "./state.js";
/** @import { PaneState, Session, State } from "./types.js" */

/** The state, who watches it, and the address that holds it. */
export class Store {
  /** @param {Session} session */
  constructor(session) {
    this.session = session;
    this.state = readState(session, location.hash);
    /** @type {(() => void)[]} */
    this.watchers = [];
    this.waiting = 0;
    this.step = false;
    addEventListener("popstate", () => this.reread());
    addEventListener("hashchange", () => this.reread());
    addEventListener("pagehide", () => this.write());
  }

  /** @returns {PaneState | undefined} */
  get pane() {
    return this.state.panes[this.state.active];
  }

  /**
   * A step is an entry of the browser's history; anything else replaces the last one.
   *
   * @param {(state: State) => void} change @param {boolean} [step]
   */
  update(change, step = false) {
    change(this.state);
    this.step ||= step;
    // Browsers limit how often an address may change.
    clearTimeout(this.waiting);
    this.waiting = setTimeout(() => this.write(), 250);
    this.tell();
  }

  /** @param {(pane: PaneState) => void} change @param {boolean} [step] */
  updatePane(change, step = false) {
    this.update((state) => {
      const pane = state.panes[state.active];
      if (pane) change(pane);
    }, step);
  }

  tell() {
    for (const watcher of this.watchers) watcher();
  }

  write() {
    clearTimeout(this.waiting);
    const fragment = `#${writeState(this.session, this.state)}`;
    if (fragment !== location.hash) history[this.step ? "pushState" : "replaceState"](null, "", fragment);
    this.step = false;
  }

  reread() {
    if (location.hash === `#${writeState(this.session, this.state)}`) return;
    clearTimeout(this.waiting);
    this.state = readState(this.session, location.hash);
    this.tell();
  }
}
