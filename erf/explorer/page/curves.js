import { FONT } from "./marks.js";
/** @import { Geometry } from "./view.js" */

export const STRIP = 58;
const LINE = "#7fb8e6";
const FILL = "rgba(127, 184, 230, 0.22)";

/** @param {number[]} values @param {string} scale @returns {number[]} -1 to 1 */
function heights(values, scale) {
  let largest = 0;
  for (const value of values) largest = Math.max(largest, Math.abs(value));
  if (!largest) return values.map(() => 0);
  return scale === "root"
    ? values.map((value) => Math.sign(value) * Math.sqrt(Math.abs(value) / largest))
    : values.map((value) => value / largest);
}

/**
 * @param {number[]} values one number per pixel of the frame
 * @param {(pixel: number) => number} along place of a pixel on the strip
 * @param {(place: number, height: number) => void} point
 * @param {number} room
 */
function trace(values, along, point, room) {
  const first = values.findIndex((_, pixel) => along(pixel + 1) >= 0);
  if (first < 0) return;
  point(along(first), 0);
  for (let pixel = first; pixel < values.length; pixel += 1) {
    point(along(pixel), values[pixel]);
    if (along(pixel) > room) break;
  }
}

/** The curves of a field along the lower and the right edge of a pane, in line with its image. */
export class Curves {
  /** @param {{x: number[], y: number[]}} curves */
  constructor(curves) {
    this.curves = curves;
    this.scale = "";
    this.x = curves.x;
    this.y = curves.y;
  }

  /** @param {string} scale */
  prepare(scale) {
    if (scale === this.scale) return;
    this.scale = scale;
    this.x = heights(this.curves.x, scale);
    this.y = heights(this.curves.y, scale);
  }

  /**
   * @param {CanvasRenderingContext2D} context
   * @param {Geometry} geometry
   * @param {string} scale
   * @param {boolean} signed
   */
  draw(context, geometry, scale, signed) {
    this.prepare(scale);
    const [tall, wide] = geometry.port;
    const room = STRIP - 10;
    const [zero, reach] = signed ? [room / 2, room / 2] : [0, room];
    const paths = [
      line(
        (point) => trace(this.x, (at) => geometry.toX(at), point, wide),
        (place, height) => [place, tall + STRIP - 2 - zero - height * reach],
      ),
      line(
        (point) => trace(this.y, (at) => geometry.toY(at), point, tall),
        (place, height) => [wide + 2 + zero + height * reach, place],
      ),
    ];
    /** @type {[number, number, number, number][]} */
    const clips = [
      [0, tall, wide, STRIP],
      [wide, 0, STRIP, tall],
    ];
    paths.forEach((path, index) => {
      context.save();
      context.beginPath();
      context.rect(...clips[index]);
      context.clip();
      context.strokeStyle = LINE;
      context.fillStyle = FILL;
      context.lineWidth = 1.2;
      context.fill(path);
      context.stroke(path);
      context.restore();
    });
  }
}

/**
 * @param {(point: (place: number, height: number) => void) => void} walk
 * @param {(place: number, height: number) => [number, number]} to
 * @returns {Path2D}
 */
function line(walk, to) {
  const path = new Path2D();
  let started = false;
  let last = 0;
  walk((place, height) => {
    const [x, y] = to(place, height);
    if (started) path.lineTo(x, y);
    else path.moveTo(x, y);
    started = true;
    last = place;
  });
  if (started) path.lineTo(...to(last, 0));
  return path;
}

/** @param {CanvasRenderingContext2D} context @param {Geometry} geometry @param {string} scale */
export function drawStrips(context, geometry, scale) {
  const [tall, wide] = geometry.port;
  context.fillStyle = "#12161b";
  context.fillRect(0, tall, wide + STRIP, STRIP);
  context.fillRect(wide, 0, STRIP, tall);
  context.fillStyle = "#39424d";
  context.fillRect(0, tall, wide, 1);
  context.fillRect(wide, 0, 1, tall);
  context.font = FONT;
  context.fillStyle = "#aab4c0";
  context.textAlign = "left";
  context.textBaseline = "top";
  const words = scale === "root" ? ["√ of", "sums"] : ["sums,", "linear"];
  words.forEach((word, index) => context.fillText(word, wide + 8, tall + 12 + 15 * index));
}
