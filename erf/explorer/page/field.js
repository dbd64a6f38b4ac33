import { address, getJson, getRaster } from "./api.js";
import { Contours } from "./contours.js";
import { Curves } from "./curves.js";
import { peak, sums } from "./overlay.js";
import { paint } from "./raster.js";
/** @import { Box, FieldReply, Numbers, OverlayState, PaneState, Raster, StoredFile } from "./types.js" */
/** @import { Colors } from "./overlay.js" */
/** @import { Geometry } from "./view.js" */

/** A receptive or projective field, or the mean of a file: its map at several levels, curves and numbers. */
export class Field {
  /**
   * @param {string} path
   * @param {Record<string, string | number | null>} query
   * @param {[number, number]} frame
   * @param {FieldReply | null} reply null for what a file holds
   * @param {{center: [number, number] | null, theory: Box | null, signed: boolean, max: number}} traits
   */
  constructor(path, query, frame, reply, traits) {
    this.path = path;
    this.query = query;
    this.frame = frame;
    this.reply = reply;
    this.center = traits.center;
    this.theory = traits.theory;
    this.signed = traits.signed;
    this.max = traits.max;
    this.complete = false;
    /** Whether the plain computation gave another field. */
    this.refuted = false;
    /** @type {Map<number, Raster>} */
    this.levels = new Map();
    /** @type {Numbers | null} */
    this.numbers = null;
    /** @type {Contours | null} */
    this.contours = null;
    /** @type {Curves | null} */
    this.curves = null;
  }

  /** Where the map can be other than nothing. @returns {Box} */
  get reach() {
    const [height, width] = this.frame;
    const [top, left, bottom, right] = this.theory ?? [0, 0, height, width];
    return [Math.max(0, top), Math.max(0, left), Math.min(height, bottom), Math.min(width, right)];
  }

  get projective() {
    return this.reply?.kind === "projective";
  }

  /** @param {number} level */
  async load(level) {
    const wanted = this.projective ? 0 : level;
    if (this.levels.has(wanted)) return;
    const query = { ...this.query, level: wanted };
    const { raster, numbers } = await getRaster(address(`${this.path}/map`, query), wanted);
    raster.peak = peak(raster);
    this.levels.set(wanted, raster);
    if (!this.reply) this.max = numbers("X-Max")[0] ?? this.max;
    if (!this.projective && !this.numbers) this.curves ??= new Curves(sums(raster, ...this.frame));
  }

  async loadNumbers() {
    if (this.numbers || this.projective) return;
    this.numbers = /** @type {Numbers} */ (await getJson(address(`${this.path}/numbers`, this.query)));
    this.contours = new Contours(this.numbers.contours, this.reach);
    this.curves = new Curves(this.numbers.curves);
  }

  /** @returns {Promise<boolean>} whether the comparison with the plain computation has come since */
  async loadCheck() {
    if (!this.numbers || this.numbers.check) return false;
    const { check } = /** @type {Numbers} */ (await getJson(address(`${this.path}/numbers`, this.query)));
    if (check) this.numbers = { ...this.numbers, check };
    this.refuted = check?.ok === false;
    return Boolean(check);
  }

  /** @param {number} level @returns {Raster | undefined} */
  best(level) {
    const there = [...this.levels.keys()].sort((one, two) => two - one);
    const found = there.find((one) => one <= level) ?? there.at(-1);
    return found === undefined ? undefined : this.levels.get(found);
  }

  /**
   * @param {CanvasRenderingContext2D} context
   * @param {Geometry} geometry
   * @param {OverlayState} overlay
   * @param {Colors} colors
   * @param {number} ratio
   */
  draw(context, geometry, overlay, colors, ratio) {
    const raster = this.best(geometry.level(ratio));
    // Units of a layer are blocks; pixels are blocks only from close up.
    if (raster)
      paint(
        context,
        geometry,
        raster,
        colors.table(overlay, this.signed, raster.peak),
        !this.projective && geometry.zoom < 2,
      );
  }

  /**
   * @param {Geometry} geometry
   * @param {number} ratio
   * @returns {number} value from which on colours are brightest
   */
  brightest(geometry, ratio) {
    return this.max * (this.best(geometry.level(ratio))?.peak ?? 1);
  }
}

/** @param {FieldReply} reply @param {[number, number]} frame @returns {Field} */
export function fieldOf(reply, frame) {
  const center = reply.center ?? reply.pixel ?? null;
  const traits = { center, theory: reply.theory ?? null, signed: reply.signed, max: reply.max };
  return new Field(`api/fields/${encodeURIComponent(reply.id)}`, {}, frame, reply, traits);
}

/** @param {StoredFile} file @param {PaneState} pane @returns {Field} */
export function storedField(file, pane) {
  const query = {
    subset: pane.subset,
    definition: pane.definition,
    image: pane.image < 0 ? null : file.images[pane.image].id,
  };
  const traits = { center: file.center, theory: file.field, signed: pane.definition === "signed", max: 1 };
  return new Field(`api/files/${file.id}`, query, file.size, null, traits);
}
