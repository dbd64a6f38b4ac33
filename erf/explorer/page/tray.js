import { post } from "./api.js";
import { find, make } from "./dom.js";
import { nameCell } from "./numbers.js";
/** @import { App } from "./app.js" */
/** @import { Field } from "./field.js" */
/** @import { Pane } from "./pane.js" */
/** @import { PaneState } from "./types.js" */

const HEIGHT = 96;

/**
 * @typedef {{field: Field, state: PaneState, name: string, what: string, picture: HTMLCanvasElement}} Kept
 */

/** Fields that were kept, with their numbers side by side. */
export class Tray {
  /** @param {App} app */
  constructor(app) {
    this.app = app;
    this.place = find("tray", HTMLElement);
    this.body = make("tbody");
    /** @type {Kept[]} */
    this.kept = [];
    find("keep", HTMLButtonElement).addEventListener("click", () => this.keep());
    app.listeners.push(() => this.syncNumbers());
  }

  keep() {
    const { pane } = this.app;
    const field = pane?.field;
    if (!pane || !field || this.kept.some((one) => one.field === field)) return;
    this.tell(field, true);
    const image = pane.file ? null : this.app.session.images[pane.state.image];
    this.kept.push({
      field,
      state: structuredClone(pane.state),
      name: [pane.name(), image && ([image.laterality, image.view].filter(Boolean).join(" ") || image.name)]
        .filter(Boolean)
        .join(" · "),
      what: pane.what(),
      picture: this.thumbnail(pane),
    });
    this.draw();
    field.loadNumbers().then(
      () => this.syncNumbers(),
      (error) => this.app.fail(error),
    );
    this.app.announce(`kept: ${pane.what()}`);
  }

  /** The server forgets fields that are not kept. @param {Field} field @param {boolean} kept */
  tell({ reply }, kept) {
    if (reply) post(`api/fields/${encodeURIComponent(reply.id)}/keep`, { kept }).catch((error) => this.app.fail(error));
  }

  /** @param {Pane} pane @returns {HTMLCanvasElement} */
  thumbnail({ geometry, stage }) {
    const { port } = geometry;
    const picture = make("canvas", { "aria-hidden": "true" });
    const ratio = devicePixelRatio;
    picture.height = HEIGHT;
    picture.width = Math.round((HEIGHT * port[1]) / port[0]);
    const context = /** @type {CanvasRenderingContext2D} */ (picture.getContext("2d"));
    for (const canvas of [...stage.querySelectorAll("canvas")].slice(0, 2))
      if (canvas.width)
        context.drawImage(canvas, 0, 0, port[1] * ratio, port[0] * ratio, 0, 0, picture.width, picture.height);
    return picture;
  }

  /** @param {Kept} one */
  remove(one) {
    this.kept = this.kept.filter((other) => other !== one);
    this.tell(one.field, false);
    this.draw();
    find("keep", HTMLButtonElement).focus();
  }

  /** @param {Kept} one */
  show(one) {
    this.app.store.updatePane((pane) => Object.assign(pane, structuredClone(one.state)), true);
  }

  draw() {
    this.place.hidden = !this.kept.length;
    this.place.replaceChildren();
    if (!this.kept.length) return;
    const heads = this.kept.map((one) => this.head(one));
    const head = make("tr", {}, make("th", { scope: "col" }, "kept fields"), ...heads);
    const table = make("table", {}, make("thead", {}, head), this.body);
    this.place.append(
      make("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Numbers of kept fields" }, table),
    );
    this.syncNumbers();
  }

  /** @param {Kept} one @returns {HTMLTableCellElement} */
  head(one) {
    const words = `${one.name}: ${one.what}`;
    const show = make(
      "button",
      { class: "show", title: `Show again: ${words}` },
      one.picture,
      make("span", {}, one.name),
      make("small", {}, one.what),
    );
    show.addEventListener("click", () => this.show(one));
    const remove = make("button", { class: "remove", "aria-label": `Remove ${words}`, title: "Remove" }, "×");
    remove.addEventListener("click", () => this.remove(one));
    return make("th", { scope: "col" }, make("div", {}, show, remove));
  }

  syncNumbers() {
    const names = [
      ...new Set(this.kept.flatMap(({ field }) => field.numbers?.measures.map((measure) => measure.name) ?? [])),
    ];
    const rows = names.map((name) => {
      const values = this.kept.map(({ field }) => field.numbers?.measures.find((measure) => measure.name === name));
      const cells = values.map((measure) => make("td", {}, measure && measure.value !== null ? measure.text : "–"));
      return make("tr", {}, nameCell(this.app.session.measures, name), ...cells);
    });
    this.body.replaceChildren(...rows);
  }
}
