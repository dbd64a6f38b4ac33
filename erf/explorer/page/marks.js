/** @import { Box } from "./types.js" */
/** @import { Geometry } from "./view.js" */

export const FONT = "11px system-ui, sans-serif";
const DARK = "rgba(0, 0, 0, 0.7)";

/**
 * @param {CanvasRenderingContext2D} context
 * @param {() => void} shape
 * @param {string} color
 * @param {number[]} dash
 */
function outlined(context, shape, color, dash) {
  context.save();
  for (const [style, width, lines] of /** @type {[string, number, number[]][]} */ ([
    [DARK, 3, []],
    [color, 1.25, dash],
  ])) {
    context.strokeStyle = style;
    context.lineWidth = width;
    context.setLineDash(lines);
    context.beginPath();
    shape();
    context.stroke();
  }
  context.restore();
}

/**
 * Text that is readable on any tissue.
 *
 * @param {CanvasRenderingContext2D} context
 * @param {string} words
 * @param {number} x
 * @param {number} y
 */
export function write(context, words, x, y) {
  context.font = FONT;
  context.strokeStyle = DARK;
  context.lineWidth = 3;
  context.lineJoin = "round";
  context.fillStyle = "#f0f2f5";
  context.strokeText(words, x, y);
  context.fillText(words, x, y);
}

/**
 * Where the pointer of the other pane is.
 *
 * @param {CanvasRenderingContext2D} context
 * @param {Geometry} geometry
 * @param {[number, number]} place
 */
export function drawRing(context, geometry, [y, x]) {
  outlined(context, () => context.arc(geometry.toX(x), geometry.toY(y), 5, 0, 2 * Math.PI), "#fff", []);
}

/** @param {CanvasRenderingContext2D} context @param {Geometry} geometry @param {[number, number]} center */
export function drawCross(context, geometry, [y, x]) {
  const [row, column] = [geometry.toY(y), geometry.toX(x)];
  outlined(
    context,
    () => {
      for (const [down, right] of [
        [0, 1],
        [0, -1],
        [1, 0],
        [-1, 0],
      ]) {
        context.moveTo(column + 3 * right, row + 3 * down);
        context.lineTo(column + 10 * right, row + 10 * down);
      }
    },
    "#fff",
    [],
  );
}

/** @param {CanvasRenderingContext2D} context @param {Geometry} geometry @param {Box} box */
export function drawBox(context, geometry, [top, left, bottom, right]) {
  const y = geometry.top + top * geometry.zoom;
  const x = geometry.left + left * geometry.zoom;
  outlined(
    context,
    () => context.rect(x, y, (right - left) * geometry.zoom, (bottom - top) * geometry.zoom),
    "#ffd166",
    [6, 4],
  );
}

/**
 * @param {CanvasRenderingContext2D} context
 * @param {Geometry} geometry
 * @param {number} spacing mm per pixel, 0 if unknown
 */
export function drawRuler(context, geometry, spacing) {
  const unit = spacing ? geometry.zoom / spacing : geometry.zoom;
  const power = 10 ** Math.floor(Math.log10(110 / unit));
  const length = [5, 2, 1].map((step) => step * power).find((step) => step * unit <= 110) ?? power;
  const right = geometry.port[1] - 12;
  const y = geometry.port[0] - 12;
  const left = right - length * unit;
  outlined(
    context,
    () => {
      context.moveTo(left, y - 4);
      context.lineTo(left, y);
      context.lineTo(right, y);
      context.lineTo(right, y - 4);
    },
    "#e8ebef",
    [],
  );
  context.textAlign = "center";
  context.textBaseline = "bottom";
  write(context, `${Number(length.toPrecision(2))} ${spacing ? "mm" : "px"}`, (left + right) / 2, y - 5);
}
