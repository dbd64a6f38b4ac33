import { FONT, write } from "./marks.js";
/** @import { OverlayState, Raster } from "./types.js" */

export const DECADES = 4;
const CODES = 65536;
const PLATE = "rgba(8, 10, 13, 0.6)";
/** Height of a line of text. */
const LINE = 13;

/** @param {number} code bits of a float16 @returns {number} */
function decode(code) {
  const sign = code & 0x8000 ? -1 : 1;
  const exponent = (code >> 10) & 31;
  const rest = code & 1023;
  if (exponent === 31) return NaN;
  return sign * (exponent ? 2 ** (exponent - 15) * (1 + rest / 1024) : 2 ** -14 * (rest / 1024));
}

/** The value of each bit pattern of a float16. */
export const HALF = Float32Array.from({ length: CODES }, (_, code) => decode(code));

/** @param {number} value -1 to 1 @param {string} scale @returns {number} */
export function scaled(value, scale) {
  const size = Math.min(1, Math.abs(value));
  const sign = Math.sign(value);
  if (scale === "linear") return sign * size;
  if (scale === "root") return sign * Math.sqrt(size);
  return size > 0 ? sign * Math.max(0, 1 + Math.log10(size) / DECADES) : 0;
}

/** @param {string} base64 @returns {Uint8Array} 256 x 3 bytes */
const bytes = (base64) => Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));

/** Colours of float16 values, one for each bit pattern: values need no conversion. */
export class Colors {
  /** @param {Record<string, string>} maps */
  constructor(maps) {
    this.maps = Object.fromEntries(Object.entries(maps).map(([name, text]) => [name, bytes(text)]));
    /** @type {Map<string, Uint32Array>} */
    this.tables = new Map();
  }

  /** @param {string} name @param {number} share 0 to 1 @returns {[number, number, number]} */
  rgb(name, share) {
    const place = 3 * Math.round(255 * Math.min(1, Math.max(0, share)));
    const map = this.maps[name];
    return [map[place], map[place + 1], map[place + 2]];
  }

  /**
   * @param {OverlayState} overlay
   * @param {boolean} signed
   * @param {number} [brightest] value with the brightest colour
   * @returns {Uint32Array}
   */
  table(overlay, signed, brightest = 1) {
    const name = signed ? "RdBu_r" : overlay.colors;
    const key = `${name} ${overlay.scale} ${overlay.opacity} ${signed} ${brightest}`;
    const known = this.tables.get(key);
    if (known) return known;
    const made = new Uint32Array(CODES);
    for (let code = 0; code < CODES; code += 1) {
      const value = scaled(HALF[code] / brightest, overlay.scale);
      if (!value) continue;
      const [red, green, blue] = this.rgb(name, signed ? (1 + value) / 2 : value);
      // Small values fade, so that the image remains readable around a field.
      const alpha = Math.round(255 * overlay.opacity * Math.min(1, Math.abs(value) * 5));
      made[code] = ((alpha << 24) | (blue << 16) | (green << 8) | red) >>> 0;
    }
    if (this.tables.size > 8) this.tables.clear();
    this.tables.set(key, made);
    return made;
  }

  /**
   * @param {CanvasRenderingContext2D} context
   * @param {OverlayState} overlay
   * @param {boolean} signed
   * @param {number} max value of the map where it is 1
   * @param {number} height of the pane
   */
  drawBar(context, overlay, signed, max, height) {
    const name = signed ? "RdBu_r" : overlay.colors;
    const [long, wide, left] = [Math.min(140, height / 3), 10, 10];
    const top = height - long - 14;
    const head = `map ÷ ${max.toPrecision(3)}`;
    context.font = FONT;
    context.fillStyle = PLATE;
    context.fillRect(left - 6, top - 24, context.measureText(head).width + 12, long + 34);
    for (let row = 0; row < long; row += 1) {
      context.fillStyle = `rgb(${this.rgb(name, 1 - row / long).join(",")})`;
      context.fillRect(left, top + row, wide, 1.5);
    }
    context.textAlign = "left";
    context.textBaseline = "middle";
    let free = -Infinity;
    for (const [value, words] of ticks(overlay.scale, signed)) {
      const share = scaled(value, overlay.scale);
      const y = top + long * (1 - (signed ? (1 + share) / 2 : share));
      if (y < free) continue;
      free = y + LINE;
      write(context, words, left + wide + 5, y);
    }
    write(context, head, left, top - 14);
  }
}

/** @param {string} scale @param {boolean} signed @returns {[number, string][]} */
function ticks(scale, signed) {
  /** @type {Record<string, number[]>} */
  const all = { linear: [1, 0.75, 0.5, 0.25, 0], root: [1, 0.5, 0.25, 0.05, 0], log: [1, 0.1, 0.01, 1e-3, 1e-4] };
  const values = all[scale] ?? all.log;
  /** @type {(value: number) => [number, string]} */
  const tick = (value) => [value, value === 1 ? "≥ 1" : value === -1 ? "≤ −1" : String(value).replace("-", "−")];
  if (!signed) return values.map(tick);
  const half = values.filter((_, index) => index % 2 === 0);
  return half
    .flatMap((value) => (value && scaled(value, scale) ? [value, -value] : [0]))
    .sort((one, two) => two - one)
    .map(tick);
}

/**
 * Share of a map's values that are not brighter than the brightest colour: single pixels would else dim all others.
 */
const BRIGHT = 0.998;

/**
 * Each level has its own brightest colour, as means over blocks are far below the largest value of a map.
 *
 * @param {Raster} raster float16
 * @returns {number} a magnitude that few values exceed
 */
export function peak({ data }) {
  // The bits of positive float16 values are in the order of the values.
  const counts = new Uint32Array(CODES / 2);
  for (const code of data) counts[code & 0x7fff] += 1;
  let left = (data.length - counts[0]) * (1 - BRIGHT);
  let code = counts.length - 1;
  while (code > 0 && (left -= counts[code]) >= 0) code -= 1;
  return HALF[code] || 1;
}

/**
 * @param {Raster} raster float16
 * @param {number} height
 * @param {number} width
 * @returns {{x: number[], y: number[]}} sums across rows and columns, one number per pixel of the frame
 */
export function sums(raster, height, width) {
  const x = new Float64Array(raster.columns);
  const y = new Float64Array(raster.rows);
  for (let row = 0, place = 0; row < raster.rows; row += 1)
    for (let column = 0; column < raster.columns; column += 1, place += 1) {
      const value = HALF[raster.data[place]];
      x[column] += value;
      y[row] += value;
    }
  const [top, left, bottom, right] = raster.box;
  const spread = (
    /** @type {Float64Array} */ from,
    /** @type {number} */ start,
    /** @type {number} */ end,
    /** @type {number} */ length,
  ) => Array.from({ length }, (_, at) => from[Math.floor(((at - start) / (end - start)) * from.length)] ?? 0);
  return { x: spread(x, left, right, width), y: spread(y, top, bottom, height) };
}
