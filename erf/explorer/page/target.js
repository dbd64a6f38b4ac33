/** @import { Box, Target } from "./types.js" */
/** @import { Pane } from "./pane.js" */

/** @param {number} place @param {number} count @returns {number} */
const inside = (place, count) => Math.min(count - 1, Math.max(0, place));

/**
 * The unit nearest to a pixel, from the place of the one that is shown; only the server knows where the first one is.
 *
 * @param {Pane} pane
 * @param {Target} at
 * @returns {[number, number] | null}
 */
export function unitAt({ contents, layer }, at) {
  if (at.unit) return at.unit;
  const reply = contents.field?.reply;
  if (!layer || !reply?.unit || !reply.center || reply.layer !== layer.name) return null;
  const { unit, center } = reply;
  const along = (/** @type {0 | 1} */ axis, /** @type {number} */ place) =>
    inside(Math.round(unit[axis] + (place - center[axis]) / layer.stride[axis]), layer.shape[axis]);
  return [along(0, at.y), along(1, at.x)];
}

/**
 * What the cross and the box show at once, before the server has answered.
 *
 * @param {Pane} pane
 * @returns {{center: [number, number] | null, theory: Box | null}}
 */
export function expected(pane) {
  const { contents, file, layer, state } = pane;
  const { at } = state;
  const field = contents.field;
  if (file || !at) return { center: field?.center ?? null, theory: field?.theory ?? null };
  const unit = at.kind === "field" ? unitAt(pane, at) : null;
  const shown = field?.reply;
  if (!layer || !unit || !shown?.unit || !shown.center || shown.layer !== layer.name)
    return { center: [at.y, at.x], theory: null };
  const down = (unit[0] - shown.unit[0]) * layer.stride[0];
  const right = (unit[1] - shown.unit[1]) * layer.stride[1];
  const theory =
    shown.theory && /** @type {Box} */ (shown.theory.map((edge, side) => edge + (side % 2 ? right : down)));
  return { center: [shown.center[0] + down, shown.center[1] + right], theory: theory ?? null };
}

/**
 * @param {Pane} pane
 * @param {number} down strides
 * @param {number} right
 * @returns {Target | null} the next unit, or the pixel one stride further
 */
export function stepped(pane, down, right) {
  const { frame, layer, state } = pane;
  const { at } = state;
  if (!layer || !at) return null;
  const y = inside(Math.round(at.y + down * layer.stride[0]), frame[0]);
  const x = inside(Math.round(at.x + right * layer.stride[1]), frame[1]);
  const unit = at.kind === "field" ? unitAt(pane, at) : null;
  if (!unit) return { kind: at.kind, y, x, unit: null };
  return {
    kind: at.kind,
    y,
    x,
    unit: [inside(unit[0] + down, layer.shape[0]), inside(unit[1] + right, layer.shape[1])],
  };
}

/**
 * @param {Pane} pane
 * @param {"field" | "projective"} kind
 * @param {number} y
 * @param {number} x
 * @returns {Target} the pixel itself, or the nearest one of the frame
 */
export function pointed({ frame }, kind, y, x) {
  return { kind, y: inside(y, frame[0]), x: inside(x, frame[1]), unit: null };
}
