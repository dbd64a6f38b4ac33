/** @import { View } from "./types.js" */

const CLOSEST = 64;

/** Where a frame of H x W pixels lies on a pane of h x w CSS pixels. */
export class Geometry {
  /** @param {[number, number]} frame @param {[number, number]} port @param {View | null} view */
  constructor(frame, port, view) {
    this.frame = frame;
    this.port = port;
    const fit = Math.min(port[0] / frame[0], port[1] / frame[1]);
    this.zoom = view ? view.scale / frame[0] : fit;
    this.fit = fit;
    this.top = port[0] / 2 - (view ? view.y : 0.5) * frame[0] * this.zoom;
    this.left = port[1] / 2 - (view ? view.x : 0.5) * frame[1] * this.zoom;
  }

  /** @param {number} pixel @returns {number} middle of a pixel on the screen */
  toY(pixel) {
    return this.top + (pixel + 0.5) * this.zoom;
  }

  /** @param {number} pixel @returns {number} */
  toX(pixel) {
    return this.left + (pixel + 0.5) * this.zoom;
  }

  /**
   * @param {number} y
   * @param {number} x
   * @returns {[number, number]} the pixel of the frame, perhaps outside of it
   */
  pixel(y, x) {
    return [Math.floor((y - this.top) / this.zoom), Math.floor((x - this.left) / this.zoom)];
  }

  /** @param {number} y @param {number} x @returns {boolean} */
  holds(y, x) {
    const [row, column] = this.pixel(y, x);
    return row >= 0 && column >= 0 && row < this.frame[0] && column < this.frame[1];
  }

  /** @param {number} zoom @param {number} top @param {number} left @returns {View} */
  viewAt(zoom, top, left) {
    return {
      scale: zoom * this.frame[0],
      y: (this.port[0] / 2 - top) / zoom / this.frame[0],
      x: (this.port[1] / 2 - left) / zoom / this.frame[1],
    };
  }

  /**
   * @param {number} factor
   * @param {number} y
   * @param {number} x
   * @returns {View} what is at y, x stays there
   */
  zoomed(factor, y, x) {
    const zoom = Math.min(CLOSEST, Math.max(this.fit / 4, this.zoom * factor));
    const grown = zoom / this.zoom;
    return this.viewAt(zoom, y - (y - this.top) * grown, x - (x - this.left) * grown);
  }

  /** @param {number} y @param {number} x @param {number} extent pixels @returns {View} a square in the middle */
  around(y, x, extent) {
    const scale = Math.min(CLOSEST, (0.7 * Math.min(...this.port)) / Math.max(1, extent)) * this.frame[0];
    return { scale, y: (y + 0.5) / this.frame[0], x: (x + 0.5) / this.frame[1] };
  }

  /** @param {number} down @param {number} right @returns {View} */
  moved(down, right) {
    const inside = (/** @type {number} */ start, /** @type {number} */ length, /** @type {number} */ room) =>
      Math.min(room - 40, Math.max(40 - length, start));
    const [height, width] = this.frame.map((size) => size * this.zoom);
    return this.viewAt(
      this.zoom,
      inside(this.top + down, height, this.port[0]),
      inside(this.left + right, width, this.port[1]),
    );
  }

  /** @param {number} ratio device pixels per CSS pixel @returns {number} coarsest level that loses nothing */
  level(ratio) {
    return Math.max(0, Math.floor(-Math.log2(this.zoom * ratio) + 0.25));
  }
}
