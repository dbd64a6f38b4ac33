/** @import { Target, View } from "./types.js" */
/** @import { Store } from "./store.js" */

/** Changes that reach the other pane too when panes are linked. */
export class Links {
  /** @param {Store} store */
  constructor(store) {
    this.store = store;
  }

  /** @param {number} index @returns {number[]} */
  reached(index) {
    const { panes, linked } = this.store.state;
    return linked ? panes.map((_, other) => other) : [index];
  }

  /** @param {number} index @returns {[number, number]} */
  frame(index) {
    const { source } = this.store.state.panes[index];
    const { networks, files } = this.store.session;
    return (source[0] === "f" ? files : networks)[Number(source.slice(1))].size;
  }

  /** @param {number} index @param {View | null} view */
  setView(index, view) {
    this.store.update((state) => {
      for (const other of this.reached(index)) state.panes[other].view = view && { ...view };
    });
  }

  /** @param {number} index @param {Target} target @param {boolean} step */
  setTarget(index, target, step) {
    const own = this.frame(index);
    this.store.update((state) => {
      for (const other of this.reached(index)) {
        if (state.panes[other].source[0] === "f") continue;
        const frame = this.frame(other);
        const [y, x] = /** @type {const} */ ([0, 1]).map((axis) => {
          const place = axis ? target.x : target.y;
          return other === index ? place : Math.floor(((place + 0.5) * frame[axis]) / own[axis]);
        });
        state.panes[other].at = { kind: target.kind, y, x, unit: other === index ? target.unit : null };
      }
    }, step);
  }

  /** @param {number} index @param {number} image */
  setImage(index, image) {
    this.store.update((state) => {
      const kind = state.panes[index].source[0];
      for (const other of this.reached(index))
        if (state.panes[other].source[0] === kind) state.panes[other].image = image;
    }, true);
  }
}
