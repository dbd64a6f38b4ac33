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

/** The three layers of a pane: each is redrawn only when something on it has changed. */
export class Painter {
  /** @param {HTMLCanvasElement} image @param {HTMLCanvasElement} field @param {HTMLCanvasElement} marks */
  constructor(image, field, marks) {
    this.image = image;
    this.field = field;
    this.marks = marks;
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
