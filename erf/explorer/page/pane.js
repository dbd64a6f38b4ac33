import { Contents } from "./contents.js";
import { make } from "./dom.js";
import { Painter } from "./painter.js";
import { expected, pointed, stepped } from "./target.js";
import { Geometry } from "./view.js";
/** @import { Layer, PaneState, State, StoredFile } from "./types.js" */
/** @import { App } from "./app.js" */

/** One image with one field on it. */
export class Pane {
  /** @param {App} app @param {number} index */
  constructor(app, index) {
    this.app = app;
    this.index = index;
    this.contents = new Contents(this);
    this.caption = make("h2", { class: "caption" });
    this.busy = make("p", { class: "busy", hidden: true });
    const canvases = [make("canvas"), make("canvas"), make("canvas")];
    this.stage = make(
      "div",
      { class: "stage", role: "application", tabindex: "0", "aria-describedby": "stage-help" },
      ...canvases,
    );
    this.element = make("section", { class: "pane" }, this.caption, this.stage, this.busy);
    this.painter = new Painter(canvases[0], canvases[1], canvases[2]);
    this.frameWaiting = 0;
    new ResizeObserver(() => this.draw()).observe(this.stage);
  }

  get picture() {
    return this.contents.picture;
  }

  get field() {
    return this.contents.field;
  }

  /** @returns {PaneState} */
  get state() {
    return this.app.store.state.panes[this.index];
  }

  /** @returns {State} */
  get whole() {
    return this.app.store.state;
  }

  /** @returns {StoredFile | null} */
  get file() {
    const { source } = this.state;
    return source[0] === "f" ? this.app.session.files[Number(source.slice(1))] : null;
  }

  get network() {
    return this.file ? null : this.app.session.networks[Number(this.state.source.slice(1))];
  }

  /** @returns {Layer | null} */
  get layer() {
    return this.network?.layers.find((layer) => layer.name === this.state.layer) ?? null;
  }

  /** @returns {[number, number]} */
  get frame() {
    return /** @type {[number, number]} */ ((this.file ?? this.network)?.size);
  }

  get geometry() {
    return new Geometry(this.frame, Painter.port(this.stage, this.whole.overlay.curves), this.state.view);
  }

  /** Level of detail that the zoom needs. */
  get level() {
    return this.geometry.level(devicePixelRatio);
  }

  /** Follow the state. */
  sync() {
    if (!this.state) return;
    this.contents.sync();
    this.describe();
    this.draw();
  }

  changed() {
    this.describe();
    this.draw();
    this.app.changed(this);
  }

  /** @param {string[]} words of all that goes on */
  showBusy(words) {
    this.busy.textContent = words[0] ?? "";
    this.busy.hidden = !words.length;
  }

  /** @returns {string} */
  name() {
    return this.file?.name ?? this.network?.name ?? "";
  }

  /** @returns {string} */
  ordinal() {
    return this.index ? "second pane" : "first pane";
  }

  /** @returns {string} what is shown, in a few words */
  what() {
    const reply = this.field?.reply;
    if (this.file)
      return this.state.image < 0
        ? `mean, ${this.state.subset}`
        : `profile of ${this.file.images[this.state.image].name}`;
    if (reply?.kind === "projective") return `units of ${reply.layer} that see pixel ${reply.pixel?.join(", ")}`;
    if (reply) return `unit ${reply.unit?.join(", ")} of ${reply.layer}`;
    return `layer ${this.state.layer}`;
  }

  /** @returns {string} */
  sentence() {
    const first = this.field?.numbers?.measures.find((measure) => measure.value !== null);
    return `${this.what()}${first ? `: ${first.name} ${first.text}` : ""}`;
  }

  describe() {
    const reply = this.field?.reply;
    const effort = reply ? [`${reply.seconds.toFixed(2)} s`, reply.way] : [];
    const image = this.file
      ? []
      : [this.app.session.images[this.state.image]].map((one) => [one.laterality, one.view].filter(Boolean).join(" "));
    const words = [this.name(), ...image, this.what(), ...effort].filter(Boolean).join(" · ");
    if (this.caption.textContent !== words) {
      this.caption.textContent = words;
      this.caption.title = words;
    }
    this.stage.setAttribute("aria-label", `${this.name()}: ${this.what()}`);
    this.element.classList.toggle("active", this.whole.panes.length > 1 && this.whole.active === this.index);
  }

  draw() {
    if (this.frameWaiting) return;
    this.frameWaiting = requestAnimationFrame(() => {
      this.frameWaiting = 0;
      if (this.state && this.element.isConnected) this.drawNow();
    });
  }

  drawNow() {
    const { cursor, colors, store } = this.app;
    const { window, overlay, linked } = store.state;
    this.painter.draw({
      geometry: this.geometry,
      picture: this.picture,
      field: this.field,
      window,
      overlay,
      colors,
      ...expected(this),
      cursor: cursor && cursor.pane !== this.index && linked ? this.pixelOf(cursor) : null,
      ratio: devicePixelRatio,
    });
    this.contents.refine();
  }

  /** @param {{y: number, x: number}} share @returns {[number, number]} */
  pixelOf({ y, x }) {
    return [Math.floor(y * this.frame[0]), Math.floor(x * this.frame[1])];
  }

  /** @returns {[number, number]} the pixel in the middle of the pane */
  middle() {
    const { geometry } = this;
    return geometry.pixel(geometry.port[0] / 2, geometry.port[1] / 2);
  }

  /** @param {number} down @param {number} right strides */
  step(down, right) {
    const target = stepped(this, down, right);
    if (target) this.app.links.setTarget(this.index, target, false);
    else this.point("field", ...this.middle(), true);
  }

  /** @param {"field" | "projective"} kind @param {number} y @param {number} x @param {boolean} step */
  point(kind, y, x, step) {
    if (!this.network) return;
    this.contents.retry();
    this.app.links.setTarget(this.index, pointed(this, kind, y, x), step);
  }
}
