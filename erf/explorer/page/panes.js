import { find } from "./dom.js";
import { Pane } from "./pane.js";
import { Pointer } from "./pointer.js";
import { freshPane, sourcesOf } from "./state.js";
/** @import { App } from "./app.js" */
/** @import { Hands, Tool } from "./pointer.js" */

/** @returns {Tool} */
function chosenTool() {
  const tool = document.querySelector("input[name=tool]:checked");
  return /** @type {Tool} */ (tool instanceof HTMLInputElement ? tool.value : "field");
}

/** @param {App} app @param {Pane} pane @returns {Hands} */
function handsOf(app, pane) {
  return {
    tool: chosenTool,
    point: (kind, y, x, phase) => {
      app.drag = phase === "end" ? "" : phase;
      if (phase === "end") app.store.tell();
      else pane.point(kind, ...pane.geometry.pixel(y, x), phase === "start");
    },
    pan: (down, right) => app.links.setView(pane.index, pane.geometry.moved(down, right)),
    zoom: (factor, y, x) => app.links.setView(pane.index, pane.geometry.zoomed(factor, y, x)),
    window: (down, right) => shiftWindow(app, pane, down, right),
    hover: (place) => hover(app, pane, place),
  };
}

/** @param {App} app @param {Pane} pane @param {number} down @param {number} right */
function shiftWindow(app, pane, down, right) {
  if (!pane.picture) return;
  const [center, width] = pane.picture.window(app.store.state.window);
  // 400 px of drag double a width, or move a centre by one width.
  app.store.update(({ window }) => {
    window.preset = "custom";
    window.width = Math.max(1e-6, width * 2 ** (right / 200));
    window.center = center + (down * width) / 400;
  });
}

/** @param {App} app @param {Pane} pane @param {[number, number] | null} place */
function hover(app, pane, place) {
  const { geometry } = pane;
  if (!place || !geometry.holds(...place)) {
    app.cursor = null;
    find("status", HTMLElement).textContent = "";
  } else {
    const [y, x] = geometry.pixel(...place);
    app.cursor = { pane: pane.index, y: (y + 0.5) / pane.frame[0], x: (x + 0.5) / pane.frame[1] };
    find("status", HTMLElement).textContent = statusOf(pane, y, x);
  }
  for (const other of app.panes) if (other !== pane) other.draw();
}

/** @param {Pane} pane @param {number} y @param {number} x @returns {string} */
function statusOf(pane, y, x) {
  const spacing = pane.picture?.spacing;
  const found = pane.picture?.at(y, x);
  const values = found?.values.map((value) => String(Number(value.toPrecision(6)))).join(", ");
  return [
    `y ${y}, x ${x} px`,
    spacing ? `${(y * spacing).toFixed(1)}, ${(x * spacing).toFixed(1)} mm` : "",
    values === undefined ? "" : `value ${found?.exact ? "" : "about "}${values}`,
    `zoom ${(pane.geometry.zoom * devicePixelRatio * 100).toFixed(0)} %`,
  ]
    .filter(Boolean)
    .join("  ·  ");
}

/** The one or two panes of the page. */
export class Panes {
  /** @param {App} app */
  constructor(app) {
    this.app = app;
    this.place = find("panes", HTMLElement);
    app.store.watchers.push(() => this.sync());
  }

  sync() {
    const { panes } = this.app.store.state;
    while (this.app.panes.length < panes.length) this.add();
    while (this.app.panes.length > panes.length) this.app.panes.pop()?.element.remove();
    for (const pane of this.app.panes) pane.sync();
  }

  add() {
    const pane = new Pane(this.app, this.app.panes.length);
    this.app.panes.push(pane);
    this.place.append(pane.element);
    new Pointer(pane.stage, handsOf(this.app, pane));
    for (const event of ["pointerdown", "focusin"])
      pane.element.addEventListener(event, () => this.app.activate(pane.index), { capture: true });
  }

  /** A second pane shows the next network or file, at the same place. */
  toggle() {
    const { app } = this;
    app.store.update((state) => {
      if (state.panes.length > 1) {
        state.panes = [state.panes[state.active]];
        state.active = 0;
        return;
      }
      const [first] = state.panes;
      const sources = sourcesOf(app.session);
      const next = sources[(sources.indexOf(first.source) + 1) % sources.length];
      const made = next === first.source ? structuredClone(first) : freshPane(app.session, next);
      if (next[0] === "n" && first.source[0] === "n") Object.assign(made, { image: first.image, at: null });
      made.view = first.view && { ...first.view };
      state.panes.push(made);
      state.active = 1;
    }, true);
    const { panes } = app.store.state;
    const at = panes[0].at;
    if (panes.length > 1 && at && app.store.state.linked) app.links.setTarget(0, at, false);
  }
}
