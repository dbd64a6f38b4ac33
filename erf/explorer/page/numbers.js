import { find, make } from "./dom.js";
/** @import { Field } from "./field.js" */
/** @import { Pane } from "./pane.js" */
/** @import { App } from "./app.js" */
/** @import { Measure, MeasureValue, Numbers as Values } from "./types.js" */

/** @param {number | null} value */
const short = (value) => (value === null ? "" : String(Number(value.toPrecision(4))));

/** @param {MeasureValue} measure @returns {string} */
export const interval = (measure) =>
  measure.low === null || measure.high === null ? "" : `${short(measure.low)} to ${short(measure.high)}`;

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

/** @param {Field | null} field @returns {string} why some files cannot be written */
function exportNote(field) {
  if (!field) return "All but the view need a field: click on the image.";
  if (field.projective) return "ERF files and figures are of receptive fields only.";
  return field.reply ? "" : "This field is a file already; erf plot draws it.";
}

/** @typedef {{name: string, pending: boolean, numbers: Values | null, old: boolean}} Column */

/** The numbers of all panes, side by side. */
export class NumbersTable {
  /** @param {App} app */
  constructor(app) {
    this.app = app;
    this.place = find("numbers", HTMLElement);
    this.shown = "";
    /**
     * Numbers stay while the next ones are computed, so that the page does not jump.
     *
     * @type {WeakMap<Pane, Values>}
     */
    this.last = new WeakMap();
    /** @type {WeakMap<Values, number>} */
    this.keys = new WeakMap();
    this.count = 0;
    const meanings = app.session.measures.flatMap(({ name, description }) => [
      make("dt", {}, name),
      make("dd", {}, description),
    ]);
    find("meanings", HTMLElement).querySelector("dl")?.append(...meanings);
    app.listeners.push(() => this.sync());
    app.store.watchers.push(() => this.sync());
  }

  sync() {
    const field = this.app.pane?.field ?? null;
    find("keep", HTMLButtonElement).disabled = !field;
    find("reproduce", HTMLButtonElement).disabled = !field?.reply;
    for (const button of find("exports", HTMLElement).querySelectorAll("button"))
      button.disabled = button.ariaBusy === "true" || !can(button.dataset.export ?? "", field);
    find("export-note", HTMLElement).textContent = exportNote(field);
    find("zoom-field", HTMLButtonElement).disabled = !field?.contours;
    const columns = this.app.panes.map((pane) => this.column(pane));
    const hint = this.hint();
    const key = JSON.stringify([
      hint,
      columns.map(({ name, numbers, old, pending }) => [name, numbers && this.key(numbers), old, pending]),
    ]);
    if (key === this.shown) return;
    this.shown = key;
    const table = columns.some(({ numbers }) => numbers?.measures.some(({ value }) => value !== null))
      ? [this.table(columns)]
      : [];
    this.place.replaceChildren(...table, ...this.checks(columns), make("p", { class: "note" }, hint));
  }

  /** @param {Values} numbers @returns {number} */
  key(numbers) {
    if (!this.keys.has(numbers)) this.keys.set(numbers, (this.count += 1));
    return this.keys.get(numbers) ?? 0;
  }

  /** @param {Pane} pane @returns {Column} */
  column(pane) {
    const found = pane.field?.numbers ?? null;
    if (found) this.last.set(pane, found);
    else if (!pane.contents.waits) this.last.delete(pane);
    const same = this.app.panes.filter((other) => other.name() === pane.name()).length > 1;
    return {
      name: same ? `${pane.name()}, ${pane.ordinal()}` : pane.name(),
      numbers: this.last.get(pane) ?? null,
      old: !found || pane.contents.requests.running,
      pending: pane.contents.checking,
    };
  }

  /** @returns {string} what to do where there are no numbers */
  hint() {
    const { pane } = this.app;
    const field = pane?.field;
    if (!pane) return "";
    if (field?.projective)
      return `Each block is a unit of ${field.reply?.layer}; its colour tells how much the pixel moves it, red up, blue down.`;
    if (field?.numbers?.measures.every(({ value }) => value === null))
      return "No measures: they weigh a map like a mass, which a signed one is not.";
    if (field?.numbers || this.last.has(pane)) return "";
    if (pane.contents.waits) return "Computing the numbers …";
    return pane.network ? "Click on the image: the field of the unit there, and its numbers." : "";
  }

  /** @param {Column[]} columns @returns {HTMLTableElement} */
  table(columns) {
    const names = [...new Set(columns.flatMap(({ numbers }) => numbers?.measures.map(({ name }) => name) ?? []))];
    const heads = columns.map(({ name }) => make("th", { scope: "col" }, columns.length > 1 ? name : "value"));
    const rows = names.map((name) => {
      const cells = columns.map(({ numbers, old }) =>
        valueCell(
          numbers?.measures.find((one) => one.name === name),
          old,
        ),
      );
      return make("tr", {}, nameCell(this.app.session.measures, name), ...cells);
    });
    return make(
      "table",
      {},
      make("thead", {}, make("tr", {}, make("th", { scope: "col" }, "measure"), ...heads)),
      make("tbody", {}, ...rows),
    );
  }

  /** @param {Column[]} columns @returns {HTMLElement[]} */
  checks(columns) {
    return columns.flatMap(({ name, numbers, pending }) => {
      const check = numbers?.check ?? (pending ? { ok: true, text: "not yet compared with the plain computation" } : null);
      if (!check) return [];
      const words = columns.length > 1 ? `${name}: ${check.text}` : check.text;
      return [make("p", { class: check.ok ? "note check" : "warning check" }, words)];
    });
  }
}

/** @param {MeasureValue | undefined} measure @param {boolean} old @returns {HTMLTableCellElement} */
function valueCell(measure, old) {
  const cell = make("td", { class: old ? "old" : "" });
  if (!measure || measure.value === null)
    cell.append(make("span", { "aria-hidden": "true" }, "–"), make("span", { class: "unseen" }, "not defined"));
  else cell.append(measure.text);
  const range = measure ? interval(measure) : "";
  if (range) cell.append(" ", make("small", { title: "95 % interval" }, `(${range})`));
  return cell;
}
