import { drawStrips, STRIP } from "./curves.js";
import { drawBox, drawCross, drawRing, drawRuler } from "./marks.js";
/** @import { Box, OverlayState, WindowState } from "./types.js" */
/** @import { Colors } from "./overlay.js" */
/** @import { Field } from "./field.js" */
/** @import { Geometry } from "./view.js" */
/** @import { Picture } from "./picture.js" */

/**
 * @typedef {{geometry: Geometry, picture: Picture | null, field: Field | null, window: WindowState,
 *   overlay: OverlayState, colors: Colors, center: [number, number] | null, theory: Box | null,
 *   cursor: [number, number] | null, ratio: number}} Scene what a pane shows
 */

/**
 * @param {HTMLCanvasElement} canvas
 * @param {number} ratio
 * @returns {CanvasRenderingContext2D} cleared, in CSS pixels
 */
function cleared(canvas, ratio) {
  const [width, height] = [Math.round(canvas.clientWidth * ratio), Math.round(canvas.clientHeight * ratio)];
  if (canvas.width !== width) canvas.width = width;
  if (canvas.height !== height) canvas.height = height;
  const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, canvas.clientWidth, canvas.clientHeight);
  return context;
}

/** @param {CanvasRenderingContext2D} context @param {Geometry} geometry */
function clip(context, geometry) {
  context.beginPath();
  context.rect(0, 0, geometry.port[1], geometry.port[0]);
  context.clip();
}

/** The three layers of a pane. */
export class Painter {
  /** @param {HTMLCanvasElement} image @param {HTMLCanvasElement} field @param {HTMLCanvasElement} marks */
  constructor(image, field, marks) {
    this.image = image;
    this.field = field;
    this.marks = marks;
    this.drawn = ["", "", ""];
    /** @type {WeakMap<object, number>} */
    this.numbers = new WeakMap();
    this.count = 0;
  }

  /**
   * Redraw the layers on which something has changed.
   *
   * @param {Scene} scene
   */
  draw(scene) {
    const { geometry, picture, field, window, overlay, center, theory, cursor, ratio } = scene;
    const { port, zoom, top, left } = geometry;
    const place = [port, zoom, top, left, ratio];
    const map = [this.number(field), field && [...field.levels.keys()]];
    const drawings = [
      { holds: [place, this.number(picture), picture && [...picture.levels.keys()], window], draw: this.drawImage },
      { holds: [place, map, overlay], draw: this.drawField },
      {
        holds: [place, map, overlay, Boolean(field?.numbers), picture?.spacing, center, theory, cursor],
        draw: this.drawMarks,
      },
    ];
    drawings.forEach(({ holds, draw }, layer) => {
      const key = JSON.stringify(holds);
      if (key === this.drawn[layer]) return;
      this.drawn[layer] = key;
      draw.call(this, scene);
    });
  }

  /** @param {object | null} thing @returns {number} different for different things */
  number(thing) {
    if (!thing) return 0;
    if (!this.numbers.has(thing)) this.numbers.set(thing, (this.count += 1));
    return this.numbers.get(thing) ?? 0;
  }

  /** @param {Scene} scene */
  drawImage(scene) {
    const context = cleared(this.image, scene.ratio);
    context.save();
    clip(context, scene.geometry);
    scene.picture?.draw(context, scene.geometry, scene.window, scene.ratio);
    context.restore();
  }

  /** @param {Scene} scene */
  drawField(scene) {
    const context = cleared(this.field, scene.ratio);
    if (!scene.field || !scene.overlay.shown) return;
    context.save();
    clip(context, scene.geometry);
    scene.field.draw(context, scene.geometry, scene.overlay, scene.colors, scene.ratio);
    context.restore();
  }

  /** @param {Scene} scene */
  drawMarks(scene) {
    const { geometry, field, overlay } = scene;
    const context = cleared(this.marks, scene.ratio);
    context.save();
    clip(context, geometry);
    if (field?.contours && overlay.contours) field.contours.draw(context, geometry);
    if (scene.theory && overlay.theory) drawBox(context, geometry, scene.theory);
    if (scene.center) drawCross(context, geometry, scene.center);
    if (scene.cursor) drawRing(context, geometry, scene.cursor);
    drawRuler(context, geometry, scene.picture?.spacing ?? 0);
    if (field && overlay.shown)
      scene.colors.drawBar(context, overlay, field.signed, field.brightest(geometry, scene.ratio), geometry.port[0]);
    context.restore();
    if (overlay.curves === "off") return;
    drawStrips(context, geometry, overlay.curves);
    field?.curves?.draw(context, geometry, overlay.curves, field.signed);
  }

  /**
   * @param {HTMLElement} stage
   * @param {string} curves
   * @returns {[number, number]} height and width left for the image
   */
  static port(stage, curves) {
    const strip = curves === "off" ? 0 : STRIP;
    return [Math.max(1, stage.clientHeight - strip), Math.max(1, stage.clientWidth - strip)];
  }
}
