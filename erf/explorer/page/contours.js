import { write } from "./marks.js";
/** @import { Box, Contour } from "./types.js" */
/** @import { Geometry } from "./view.js" */

const STYLES = [
  { width: 2, dash: [] },
  { width: 1.5, dash: [7, 3] },
  { width: 1.2, dash: [2, 3] },
];

/** Labels nearer to each other than this would overlap. */
const APART = 22;

/** Nearer to the upper edge than this, a label is below its line. */
const HIGH = 16;

/** Lines around shares of the mass; paths are made once, in pixels of the frame. */
export class Contours {
  /** @param {Contour[]} contours @param {Box} reach where the map can be other than nothing */
  constructor(contours, reach) {
    this.reach = reach;
    this.parts = contours.map(({ share, lines }) => ({ share, top: highest(lines, reach), path: pathOf(lines) }));
    this.extent = Math.max(0, ...contours.map(({ lines }) => extentOf(lines)));
  }

  /** @param {CanvasRenderingContext2D} context @param {Geometry} geometry */
  draw(context, geometry) {
    const { zoom, left, top } = geometry;
    // Thick lines would cover a small field.
    const thin = Math.min(1, Math.max(0.4, (this.extent * zoom) / 240));
    context.save();
    // Smoothing leads lines a little beyond.
    const [first, start, last, end] = this.reach;
    context.beginPath();
    context.rect(left + start * zoom - 1, top + first * zoom - 1, (end - start) * zoom + 2, (last - first) * zoom + 2);
    context.clip();
    this.parts.forEach(({ path }, index) => {
      const { width, dash } = STYLES[index % STYLES.length];
      context.save();
      context.transform(zoom, 0, 0, zoom, left, top);
      // A dark line beneath keeps the light one readable on bright tissue.
      context.strokeStyle = "rgba(0, 0, 0, 0.65)";
      context.lineWidth = (thin * (width + 1.6)) / zoom;
      context.stroke(path);
      context.strokeStyle = "#fff";
      context.lineWidth = (thin * width) / zoom;
      context.setLineDash(dash.map((length) => length / zoom));
      context.stroke(path);
      context.restore();
    });
    context.restore();
    this.label(context, geometry);
  }

  /** @param {CanvasRenderingContext2D} context @param {Geometry} geometry */
  label(context, geometry) {
    context.textAlign = "center";
    context.textBaseline = "bottom";
    let last = -Infinity;
    for (const { share, top } of this.parts.toReversed()) {
      const line = geometry.toY(top[0]);
      const y = line >= 0 && line < HIGH ? line + HIGH : line - 2;
      if (y - last < APART) continue;
      last = y;
      const words = `${Math.round(share * 100)} %`;
      write(context, words, geometry.toX(top[1]), y);
    }
  }
}

/** @param {number[][]} lines @returns {Path2D} */
function pathOf(lines) {
  const path = new Path2D();
  for (const line of lines)
    for (let at = 0; at < line.length; at += 2) {
      if (at === 0) path.moveTo(line[1] + 0.5, line[0] + 0.5);
      else path.lineTo(line[at + 1] + 0.5, line[at] + 0.5);
    }
  return path;
}

/** @param {number[][]} lines @returns {number} pixels from the highest to the lowest point */
function extentOf(lines) {
  let [first, last] = [Infinity, -Infinity];
  for (const line of lines)
    for (let at = 0; at < line.length; at += 2) {
      first = Math.min(first, line[at]);
      last = Math.max(last, line[at]);
    }
  return last - first;
}

/** @param {number[][]} lines @param {Box} reach @returns {[number, number]} highest point within reach */
function highest(lines, [top, left, bottom, right]) {
  /** @type {[number, number]} */
  let found = [Infinity, 0];
  for (const line of lines)
    for (let at = 0; at < line.length; at += 2) {
      const [y, x] = [line[at], line[at + 1]];
      if (y < found[0] && y >= top && y < bottom && x >= left && x < right) found = [y, x];
    }
  return found;
}
