import { Failure } from "./api.js";
import { Links } from "./links.js";
import { Colors } from "./overlay.js";
/** @import { Session } from "./types.js" */
/** @import { Messages } from "./messages.js" */
/** @import { Pane } from "./pane.js" */
/** @import { Store } from "./store.js" */

/** What all parts of the page share. */
export class App {
  /** @param {Session} session @param {Store} store @param {Messages} messages */
  constructor(session, store, messages) {
    this.session = session;
    this.store = store;
    this.messages = messages;
    this.links = new Links(store);
    this.colors = new Colors(session.colors);
    /** @type {Pane[]} */
    this.panes = [];
    /**
     * Steps of a drag, or of a key that is held, wait for each other; its start does not.
     *
     * @type {"" | "start" | "move"}
     */
    this.drag = "";
    /** Where the pointer is, as shares of a frame. @type {{pane: number, y: number, x: number} | null} */
    this.cursor = null;
    /** Told when a pane has something new to show. @type {((pane: Pane) => void)[]} */
    this.listeners = [];
    /** Milliseconds from request to picture, newest last. @type {number[]} */
    this.times = [];
  }

  /** @returns {Pane | undefined} */
  get pane() {
    return this.panes[this.store.state.active];
  }

  get live() {
    return this.drag !== "";
  }

  /** @param {Pane} pane */
  changed(pane) {
    for (const listener of this.listeners) listener(pane);
  }

  /** @param {unknown} error */
  fail(error) {
    if (error instanceof Failure && error.gone) this.messages.gone();
    else this.messages.error(error instanceof Error ? error.message : String(error));
  }

  /** @param {string} words */
  announce(words) {
    this.messages.announce(words);
  }

  /** @param {number} milliseconds */
  timing(milliseconds) {
    this.times.push(milliseconds);
    if (this.times.length > 100) this.times.shift();
  }

  /** @param {number} index */
  activate(index) {
    if (index === this.store.state.active || !this.store.state.panes[index]) return;
    this.store.update((state) => {
      state.active = index;
    });
  }
}
