import { find, make } from "./dom.js";
/** @import { Field } from "./field.js" */
/** @import { App } from "./app.js" */
/** @import { Measure, MeasureValue, Numbers as Values } from "./types.js" */

const WAIT = "Computing the numbers …";

/** @param {number | null} value */
const short = (value) => (value === null ? "" : String(Number(value.toPrecision(4))));

/** @param {MeasureValue} measure @returns {string} */
export const interval = (measure) => (measure.low === null || measure.high === null ? "" : `${short(measure.low)} to ${short(measure.high)}`);

/** @param {Measure[]} measures @param {string} name @returns {HTMLTableCellElement} the name, explained */
export function nameCell(measures, name) {
  const words = measures.find((measure) => measure.name === name)?.description ?? "";
  return make("th", { scope: "row", title: words }, name, make("span", { class: "unseen" }, words ? `: ${words}` : ""));
}

/** @param {string} kind @param {Field | null} field @returns {boolean} whether it can be exported */
function can(kind, field) {
  if (kind === "view") return true;
  return kind === "npy" ? Boolean(field?.reply) : Boolean(field?.reply && !field.projective);
}

/** The numbers of the active pane. */
export class NumbersTable {
  /** @param {App} app */
  constructor(app) {
    this.app = app;
    this.place = find("numbers", HTMLElement);
    /** @type {Values | string} */
    this.shown = "";
    app.listeners.push(() => this.sync());
    app.store.watchers.push(() => this.sync());
  }

  sync() {
    const field = this.app.pane?.field ?? null;
    find("keep", HTMLButtonElement).disabled = !field;
    find("reproduce", HTMLButtonElement).disabled = !field?.reply;
    for (const button of find("exports", HTMLElement).querySelectorAll("button")) button.disabled = !can(button.dataset.export ?? "", field);
    const content = field?.numbers ?? this.hint();
    // Numbers of the last field stay while the next one is computed, so that the page does not jump.
    const waits = content === WAIT && this.shown !== WAIT && typeof this.shown === "object";
    this.place.classList.toggle("old", waits);
    if (waits || content === this.shown) return;
    this.shown = content;
    this.place.replaceChildren(...(typeof content === "string" ? [make("p", { class: "note" }, content)] : this.table(content)));
  }

  /** @returns {string} */
  hint() {
    const { pane } = this.app;
    if (pane?.field?.projective) return `Each block is a unit of ${pane.field.reply?.layer}; its colour tells how much the pixel moves it.`;
    if (pane?.field || pane?.requests.running) return WAIT;
    return pane?.network ? "Click on the image: the field of the unit there, and its numbers." : "";
  }

  /** @param {Values} numbers @returns {Node[]} */
  table(numbers) {
    if (!numbers.measures.some((measure) => measure.value !== null)) return [make("p", { class: "note" }, "No measures of this map: they weigh its values like a mass, which a signed map has not.")];
    const ranged = numbers.measures.some((measure) => interval(measure));
    const rows = numbers.measures.map((measure) => {
      const value = make("td", {}, measure.value === null ? "–" : measure.text);
      if (measure.value === null) value.setAttribute("aria-label", "not defined");
      return make("tr", {}, nameCell(this.app.session.measures, measure.name), value, ...(ranged ? [make("td", { class: "note" }, interval(measure))] : []));
    });
    const head = make("tr", {}, make("th", { scope: "col" }, "measure"), make("th", { scope: "col" }, "value"), ...(ranged ? [make("th", { scope: "col" }, "95 % interval")] : []));
    const table = make("table", {}, make("thead", {}, head), make("tbody", {}, ...rows));
    const { check } = numbers;
    const told = check ? [make("p", { class: check.ok ? "note" : "warning" }, check.text)] : [];
    return [table, ...told];
  }
}
