import { address, getRaster } from "./api.js";
import { paint } from "./raster.js";
/** @import { Raster, WindowState } from "./types.js" */
/** @import { Geometry } from "./view.js" */

const VALUES = 65536;
export const PRESETS = [
  ["suggested", "suggested"],
  ["full", "full range"],
  ["p1", "1 to 99 %"],
  ["p5", "5 to 99.5 %"],
];
/** @type {Record<string, [number, number]>} */
const SHARES = { p1: [0.01, 0.99], p5: [0.05, 0.995] };

/**
 * @param {Raster} raster
 * @param {number} low
 * @param {number} high
 * @returns {[number, number]} stored values at two shares
 */
function percentiles(raster, low, high) {
  // The black surroundings of a breast would decide otherwise.
  const values = raster.data.filter((value) => value > 0).sort();
  if (!values.length) return [0, VALUES - 1];
  const at = (/** @type {number} */ share) => values[Math.round(share * (values.length - 1))];
  return [at(low), at(high)];
}

/** A 16-bit image at several levels of detail. */
export class Picture {
  /** @param {string} path @param {Record<string, string | number | null>} query */
  constructor(path, query) {
    this.path = path;
    this.query = query;
    /** @type {Map<number, Raster>} */
    this.levels = new Map();
    this.coarsest = 4;
    this.range = [0, VALUES - 1];
    /** @type {number[]} */
    this.suggested = [];
    this.spacing = 0;
    this.table = new Uint32Array(VALUES);
    this.tableOf = "";
    /** @type {Map<string, [number, number]>} */
    this.presets = new Map();
  }

  /** @param {number} level @returns {Promise<void>} */
  async load(level) {
    if (this.levels.has(level)) return;
    const { raster, numbers } = await getRaster(address(this.path, { ...this.query, level }), level);
    this.levels.set(level, raster);
    this.coarsest = numbers("X-Levels")[0] ?? 0;
    if (numbers("X-Range").length) this.range = numbers("X-Range");
    this.suggested = numbers("X-Window");
    this.spacing = numbers("X-Spacing")[0] ?? 0;
  }

  /**
   * @param {number} level
   * @returns {Raster | undefined} the level itself, or the next finer, or the finest that is there
   */
  best(level) {
    const there = [...this.levels.keys()].sort((one, two) => two - one);
    const found = there.find((one) => one <= level) ?? there.at(-1);
    return found === undefined ? undefined : this.levels.get(found);
  }

  /** @param {number} stored @returns {number} */
  value(stored) {
    const [low, high] = this.range;
    return low + (stored * (high - low)) / (VALUES - 1);
  }

  /** @param {WindowState} window @returns {[number, number]} centre and width in values of the file */
  window(window) {
    if (window.preset === "custom") return [window.center, window.width];
    if (window.preset === "suggested" && this.suggested.length === 2) return [this.suggested[0], this.suggested[1]];
    const known = this.presets.get(window.preset);
    if (known) return known;
    const raster = this.best(this.coarsest);
    if (!raster) return [this.value(VALUES / 2), this.value(VALUES - 1)];
    const [low, high] = percentiles(raster, ...(SHARES[window.preset] ?? [0, 1])).map((stored) => this.value(stored));
    const found = /** @type {[number, number]} */ ([(low + high) / 2, Math.max(high - low, 1e-9)]);
    this.presets.set(window.preset, found);
    return found;
  }

  /** @param {WindowState} window @returns {Uint32Array} */
  colors(window) {
    const [center, width] = this.window(window);
    const key = `${center} ${width} ${window.inverted}`;
    if (key === this.tableOf) return this.table;
    const low = center - width / 2;
    for (let stored = 0; stored < VALUES; stored += 1) {
      const share = Math.min(1, Math.max(0, (this.value(stored) - low) / width));
      const gray = Math.round(255 * (window.inverted ? 1 - share : share));
      this.table[stored] = (0xff000000 | (gray << 16) | (gray << 8) | gray) >>> 0;
    }
    this.tableOf = key;
    return this.table;
  }

  /**
   * @param {CanvasRenderingContext2D} context
   * @param {Geometry} geometry
   * @param {WindowState} window
   * @param {number} ratio
   */
  draw(context, geometry, window, ratio) {
    const raster = this.best(geometry.level(ratio));
    if (raster) paint(context, geometry, raster, this.colors(window), geometry.zoom < 2);
  }

  /**
   * @param {number} y
   * @param {number} x
   * @returns {{values: number[], exact: boolean} | null} values of the file at a pixel
   */
  at(y, x) {
    const raster = this.best(0);
    if (!raster) return null;
    const [top, left, bottom, right] = raster.box;
    const row = Math.floor(((y + 0.5 - top) / (bottom - top)) * raster.rows);
    const column = Math.floor(((x + 0.5 - left) / (right - left)) * raster.columns);
    if (row < 0 || column < 0 || row >= raster.rows || column >= raster.columns) return null;
    const start = (row * raster.columns + column) * raster.depth;
    const values = Array.from(raster.data.subarray(start, start + raster.depth), (stored) => this.value(stored));
    return { values, exact: raster.level === 0 && raster.rows === bottom - top };
  }
}
