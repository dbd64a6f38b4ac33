/** @import { Raster } from "./types.js" */
/** @import { Geometry } from "./view.js" */

const scratch = document.createElement("canvas");
const scratchContext = /** @type {CanvasRenderingContext2D} */ (scratch.getContext("2d"));

/**
 * @param {number} start
 * @param {number} cell
 * @param {number} count
 * @param {number} room
 * @returns {[number, number]}
 */
function visible(start, cell, count, room) {
  const first = Math.max(0, Math.floor(-start / cell));
  return [first, Math.min(count, Math.ceil((room - start) / cell))];
}

/** @param {Raster} raster @param {Uint32Array} table @param {Uint32Array} pixels @param {number[]} part */
function look(raster, table, pixels, [firstRow, lastRow, firstColumn, lastColumn]) {
  const { data, columns, depth } = raster;
  let place = 0;
  for (let row = firstRow; row < lastRow; row += 1) {
    const end = (row * columns + lastColumn) * depth;
    for (let at = (row * columns + firstColumn) * depth; at < end; at += depth) {
      pixels[place] =
        depth === 1
          ? table[data[at]]
          : (table[data[at]] & 0xff0000ff) | (table[data[at + 1]] & 0xff00) | (table[data[at + 2]] & 0xff0000);
      place += 1;
    }
  }
}

/**
 * Only what is visible is looked up, so that the time depends on the screen and not on the image.
 *
 * @param {CanvasRenderingContext2D} context in CSS pixels
 * @param {Geometry} geometry
 * @param {Raster} raster
 * @param {Uint32Array} table colour of each of the 65,536 values
 * @param {boolean} smooth
 */
export function paint(context, geometry, raster, table, smooth) {
  const [top, left, bottom, right] = raster.box;
  const tall = ((bottom - top) / raster.rows) * geometry.zoom;
  const wide = ((right - left) / raster.columns) * geometry.zoom;
  const y = geometry.top + top * geometry.zoom;
  const x = geometry.left + left * geometry.zoom;
  const [firstRow, lastRow] = visible(y, tall, raster.rows, geometry.port[0]);
  const [firstColumn, lastColumn] = visible(x, wide, raster.columns, geometry.port[1]);
  const rows = lastRow - firstRow;
  const columns = lastColumn - firstColumn;
  if (rows <= 0 || columns <= 0) return;
  const picture = new ImageData(columns, rows);
  look(raster, table, new Uint32Array(picture.data.buffer), [firstRow, lastRow, firstColumn, lastColumn]);
  if (scratch.width < columns) scratch.width = columns;
  if (scratch.height < rows) scratch.height = rows;
  scratchContext.putImageData(picture, 0, 0);
  context.imageSmoothingEnabled = smooth;
  context.drawImage(
    scratch,
    0,
    0,
    columns,
    rows,
    x + firstColumn * wide,
    y + firstRow * tall,
    columns * wide,
    rows * tall,
  );
}
