import { openHelp } from "./dialogs.js";
import { find } from "./dom.js";
/** @import { App } from "./app.js" */
/** @import { Controls } from "./controls.js" */
/** @import { Images } from "./images.js" */
/** @import { Panes } from "./panes.js" */

/** @type {Record<string, [number, number]>} */
const ARROWS = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
/** @type {Record<string, string>} */
const TOOLS = { a: "field", s: "projective", h: "pan", w: "window" };
/** @type {Record<string, "shown" | "contours" | "theory">} */
const SWITCHES = { o: "shown", c: "contours", t: "theory" };
/** @type {Record<string, string>} */
const BUTTONS = {
  f: "zoom-fit",
  1: "zoom-one",
  z: "zoom-field",
  "+": "zoom-in",
  "=": "zoom-in",
  "-": "zoom-out",
  2: "two-panes",
  l: "linked",
  k: "keep",
};
const MOVE = 60;
const SETTLE = 200;

/** @param {Event} event @returns {boolean} the key belongs to a control */
function taken(event) {
  const { target } = event;
  if (document.querySelector("dialog[open]")) return true;
  return (
    target instanceof HTMLSelectElement ||
    (target instanceof HTMLInputElement && target.type !== "checkbox" && target.name !== "tool")
  );
}

/** Keys that work wherever the focus is, and those of the image. */
export class Keyboard {
  /** @param {App} app @param {{images: Images, controls: Controls, panes: Panes}} parts */
  constructor(app, { images, controls }) {
    this.app = app;
    this.images = images;
    this.controls = controls;
    this.settling = 0;
    addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.metaKey || taken(event)) return;
      const onStage = event.target instanceof HTMLElement && event.target.classList.contains("stage");
      if ((onStage && this.stage(event)) || this.anywhere(event)) event.preventDefault();
    });
  }

  /** @param {KeyboardEvent} event @returns {boolean} */
  stage(event) {
    const { app } = this;
    const { pane } = app;
    const arrow = ARROWS[event.key];
    if (!pane) return false;
    if (event.key === "Enter") pane.point("field", ...pane.middle(), true);
    else if (!arrow) return false;
    else if (event.altKey || pane.file)
      app.links.setView(pane.index, pane.geometry.moved(-arrow[0] * MOVE, -arrow[1] * MOVE));
    else this.step(arrow, event.shiftKey ? 10 : 1, event.repeat);
    return true;
  }

  /** A held key is a drag. @param {[number, number]} arrow @param {number} count @param {boolean} held */
  step([down, right], count, held) {
    this.app.drag = held ? "move" : "start";
    this.app.pane?.step(down * count, right * count);
    clearTimeout(this.settling);
    this.settling = setTimeout(() => {
      this.app.drag = "";
      this.app.store.tell();
    }, SETTLE);
  }

  /** @param {KeyboardEvent} event @returns {boolean} */
  anywhere(event) {
    const { store } = this.app;
    if (event.altKey) return false;
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    if (key === "?") openHelp();
    else if (key in BUTTONS) find(BUTTONS[key], HTMLButtonElement).click();
    else if (key in TOOLS) pickTool(TOOLS[key]);
    else if (key in SWITCHES) store.update(({ overlay }) => (overlay[SWITCHES[key]] = !overlay[SWITCHES[key]]));
    else if (key === "i") store.update(({ window }) => (window.inverted = !window.inverted));
    else if (key === "x") this.turnRound();
    else if (key === "n" || key === "]") this.images.step(1);
    else if (key === "p" || key === "[") this.images.step(-1);
    else if (key === "PageDown") this.controls.stepLayer(1);
    else if (key === "PageUp") this.controls.stepLayer(-1);
    else if (key === "Escape") this.app.messages.clear();
    else return false;
    return true;
  }

  turnRound() {
    const { pane, store } = this.app;
    const at = store.pane?.at;
    if (pane && at) pane.point(at.kind === "field" ? "projective" : "field", Math.round(at.y), Math.round(at.x), true);
  }
}

/** @param {string} name */
function pickTool(name) {
  const tool = document.querySelector(`input[name=tool][value=${name}]`);
  if (tool instanceof HTMLInputElement) tool.checked = true;
}
