import { Failure, post } from "./api.js";
import { make } from "./dom.js";
import { fieldOf, storedField } from "./field.js";
import { Newest } from "./newest.js";
import { Painter } from "./painter.js";
import { Picture } from "./picture.js";
import { Geometry } from "./view.js";
/** @import { Box, FieldReply, Layer, PaneState, State, StoredFile, Target } from "./types.js" */
/** @import { Field } from "./field.js" */
/** @import { App } from "./app.js" */

const HINT_AFTER = 150;
const REFINE_AFTER = 120;

/** One image with one field on it. */
export class Pane {
  /** @param {App} app @param {number} index */
  constructor(app, index) {
    this.app = app;
    this.index = index;
    /** Which of two browsers' panes a newer request replaces. */
    this.client = crypto.getRandomValues(new Uint32Array(2)).join("");
    this.caption = make("h2", { class: "caption" });
    this.busy = make("p", { class: "busy", hidden: true }, "computing");
    const canvases = [make("canvas"), make("canvas"), make("canvas")];
    this.stage = make(
      "div",
      { class: "stage", role: "application", tabindex: "0", "aria-describedby": "stage-help" },
      ...canvases,
    );
    this.element = make("section", { class: "pane" }, this.caption, this.stage, this.busy);
    this.painter = new Painter(canvases[0], canvases[1], canvases[2]);
    /** @type {Picture | null} */
    this.picture = null;
    this.pictureKey = "";
    /** @type {Field | null} */
    this.field = null;
    this.fieldKey = "";
    /** What takes its time. @type {Set<{words: string}>} */
    this.jobs = new Set();
    this.drawn = ["", "", ""];
    this.frameWaiting = 0;
    this.refining = 0;
    this.version = 0;
    /** @type {Newest<{path: string, body: object, frame: [number, number]}>} */
    this.requests = new Newest((job, current) => this.compute(job, current));
    new ResizeObserver(() => this.draw()).observe(this.stage);
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

  get signed() {
    return this.field?.signed ?? false;
  }

  /** Follow the state. */
  sync() {
    if (!this.state) return;
    this.syncPicture();
    if (this.file) this.syncStored(this.file);
    else this.syncField();
    this.describe();
    this.draw();
  }

  syncPicture() {
    const { source, image, subset, input } = this.state;
    const key = `${source} ${image} ${this.file ? subset : input}`;
    if (key === this.pictureKey) return;
    this.pictureKey = key;
    this.field = null;
    this.fieldKey = "";
    this.picture = this.file
      ? new Picture(`api/files/${this.file.id}/background`, {
          subset,
          image: image < 0 ? null : this.file.images[image].id,
        })
      : new Picture(`api/images/${image}/pixels`, { network: this.network?.id ?? 0, input: this.state.input || null });
    void this.loadPicture(this.picture);
  }

  /** Coarse first, then what the zoom needs, then the values at the cursor. @param {Picture} picture */
  async loadPicture(picture) {
    const done = this.showBusy("loading the image");
    try {
      for (const level of this.file ? [0] : [picture.coarsest, this.geometry.level(devicePixelRatio), 0]) {
        await picture.load(Math.min(level, picture.coarsest));
        if (picture !== this.picture) return;
        this.changed();
        if (level) done();
      }
    } catch (error) {
      // A file may well hold no images.
      if (picture === this.picture && !(this.file && error instanceof Failure && error.status === 404))
        this.app.fail(error);
    } finally {
      done();
    }
  }

  /** @param {StoredFile} file */
  syncStored(file) {
    const { source, subset, definition, image } = this.state;
    const key = JSON.stringify([source, subset, definition, image]);
    if (key === this.fieldKey) return;
    this.fieldKey = key;
    this.requests.cancel();
    const field = storedField(file, this.state);
    void this.show(field, () => key === this.fieldKey).catch((error) => this.app.fail(error));
  }

  /** @returns {{path: string, body: object} | null} */
  request() {
    const { at, image, layer, channel, definition, input } = this.state;
    if (!at || !this.network) return null;
    const one = channel === "all" || channel === "signs" ? channel : Number(channel);
    const common = { network: this.network.id, image, layer, channel: one, input };
    if (at.kind === "projective") return { path: "api/projective", body: { ...common, y: at.y, x: at.x } };
    const place = at.unit ? { unit: at.unit } : { y: at.y, x: at.x };
    return { path: "api/fields", body: { ...common, ...place, definition } };
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
    this.requests.push({ path: asked.path, body, frame: this.frame }, drag === "move");
  }

  /** @param {{path: string, body: object, frame: [number, number]}} job @param {() => boolean} current */
  async compute(job, current) {
    const done = this.showBusy("computing");
    const sent = performance.now();
    try {
      const reply = /** @type {FieldReply} */ (await post(job.path, job.body));
      if (!current()) return;
      this.app.messages.clear();
      await this.show(fieldOf(reply, job.frame), current);
      this.app.timing(performance.now() - sent);
    } catch (error) {
      if (!current() || (error instanceof Failure && error.superseded)) return;
      this.field = null;
      this.changed();
      this.app.fail(error);
    } finally {
      done();
    }
  }

  /** @param {Field} field @param {() => boolean} current */
  async show(field, current) {
    await field.load(this.geometry.level(devicePixelRatio) + 1);
    if (!current()) return;
    this.field = field;
    this.changed();
    if (!this.app.live) void this.finish(field);
  }

  /** The finer map and the numbers, once a drag has ended. @param {Field} field */
  async finish(field) {
    if (field.complete) return;
    field.complete = true;
    try {
      await field.load(this.geometry.level(devicePixelRatio));
      if (field !== this.field) return;
      this.changed();
      await field.loadNumbers();
    } catch (error) {
      this.app.fail(error);
    }
    if (field !== this.field) return;
    this.changed();
    this.app.announce(this.sentence());
  }

  changed() {
    this.version += 1;
    this.describe();
    this.draw();
    this.app.changed(this);
  }

  /**
   * A hint while something takes longer than an instant.
   *
   * @param {string} words
   * @returns {() => void} ends it
   */
  showBusy(words) {
    const job = { words };
    const show = () => {
      const [first] = this.jobs;
      if (first) this.busy.textContent = first.words;
      this.busy.hidden = !first;
    };
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

  /**
   * What the cross and the box show at once, before the server has answered.
   *
   * @returns {{center: [number, number] | null, theory: Box | null}}
   */
  expected() {
    const { field, layer } = this;
    const { at } = this.state;
    const center = field?.center ?? null;
    if (this.file || !at) return { center, theory: field?.theory ?? null };
    if (at.kind === "projective") return { center: [at.y, at.x], theory: null };
    if (!layer || !field?.reply?.unit || !center || field.reply.layer !== layer.name)
      return { center: [at.y, at.x], theory: null };
    const { unit } = field.reply;
    const moved = /** @type {[number, number]} */ (
      [0, 1].map((axis) => {
        const place = at.unit
          ? at.unit[axis]
          : Math.round(unit[axis] + ((axis ? at.x : at.y) - center[axis]) / layer.stride[axis]);
        return (Math.min(layer.shape[axis] - 1, Math.max(0, place)) - unit[axis]) * layer.stride[axis];
      })
    );
    const theory = field.theory && /** @type {Box} */ (field.theory.map((edge, side) => edge + moved[side % 2]));
    return { center: [center[0] + moved[0], center[1] + moved[1]], theory };
  }

  /** @returns {string} */
  name() {
    return this.file?.name ?? this.network?.name ?? "";
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

  /** Redraw the layers whose contents have changed. */
  drawNow() {
    const { geometry, whole } = this;
    const { cursor, colors } = this.app;
    const linked = cursor && cursor.pane !== this.index && whole.linked ? this.pixelOf(cursor) : null;
    const scene = {
      geometry,
      picture: this.picture,
      field: this.field,
      window: whole.window,
      overlay: whole.overlay,
      colors,
      ...this.expected(),
      cursor: linked,
      ratio: devicePixelRatio,
    };
    const place = JSON.stringify([
      geometry.port,
      geometry.zoom,
      geometry.top,
      geometry.left,
      this.version,
      devicePixelRatio,
    ]);
    const keys = [
      place + JSON.stringify(whole.window),
      place + JSON.stringify(whole.overlay),
      place + JSON.stringify([whole.overlay, scene.center, scene.theory, linked]),
    ];
    const draws = [
      () => this.painter.drawImage(scene),
      () => this.painter.drawField(scene),
      () => this.painter.drawMarks(scene),
    ];
    draws.forEach((draw, layer) => {
      if (keys[layer] !== this.drawn[layer]) draw();
    });
    this.drawn = keys;
    this.refine(geometry.level(devicePixelRatio));
  }

  /** @param {{y: number, x: number}} share @returns {[number, number]} */
  pixelOf({ y, x }) {
    return [Math.floor(y * this.frame[0]), Math.floor(x * this.frame[1])];
  }

  /** Fetch the level that a new zoom needs. @param {number} level */
  refine(level) {
    clearTimeout(this.refining);
    const { field } = this;
    if (this.app.live || !field || field.projective || field.levels.has(level) || field.levels.size === 0) return;
    this.refining = setTimeout(() => {
      field.load(level).then(
        () => field === this.field && this.changed(),
        (error) => this.app.fail(error),
      );
    }, REFINE_AFTER);
  }

  /** @param {number} down @param {number} right strides */
  step(down, right) {
    const { at } = this.state;
    const { layer } = this;
    if (!layer) return;
    const reply = this.field?.reply;
    if (!at) return this.point("field", ...this.middle(), true);
    const inside = (/** @type {number} */ place, /** @type {number} */ count) =>
      Math.min(count - 1, Math.max(0, place));
    const y = inside(Math.round(at.y + down * layer.stride[0]), this.frame[0]);
    const x = inside(Math.round(at.x + right * layer.stride[1]), this.frame[1]);
    const from = at.unit ?? (reply?.layer === layer.name ? reply.unit : null);
    /** @type {Target} */
    const target = { kind: at.kind, y, x, unit: null };
    if (at.kind === "field" && from)
      target.unit = [inside(from[0] + down, layer.shape[0]), inside(from[1] + right, layer.shape[1])];
    this.app.links.setTarget(this.index, target, false);
  }

  /** @returns {[number, number]} the pixel in the middle of the pane */
  middle() {
    const { geometry } = this;
    return geometry.pixel(geometry.port[0] / 2, geometry.port[1] / 2);
  }

  /** @param {"field" | "projective"} kind @param {number} y @param {number} x @param {boolean} step */
  point(kind, y, x, step) {
    if (!this.network) return;
    // A click after a failure tries again.
    if (!this.field) this.fieldKey = "";
    const inside = (/** @type {number} */ place, /** @type {number} */ axis) =>
      Math.min(this.frame[axis] - 1, Math.max(0, place));
    this.app.links.setTarget(this.index, { kind, y: inside(y, 0), x: inside(x, 1), unit: null }, step);
  }
}
