/**
 * @typedef {"field" | "projective" | "pan" | "window"} Tool
 * @typedef {{
 *   tool: () => Tool,
 *   point: (kind: "field" | "projective", y: number, x: number, phase: "start" | "move" | "end") => void,
 *   pan: (down: number, right: number) => void,
 *   zoom: (factor: number, y: number, x: number) => void,
 *   window: (down: number, right: number) => void,
 *   hover: (place: [number, number] | null) => void,
 * }} Hands what gestures do; places are CSS pixels of the element
 */

const STILL = 6;

/** Mouse, pen and fingers on one element. */
export class Pointer {
  /** @param {HTMLElement} element @param {Hands} hands */
  constructor(element, hands) {
    this.element = element;
    this.hands = hands;
    this.spaced = false;
    /** @type {Map<number, [number, number]>} */
    this.fingers = new Map();
    /** @type {Tool | null} */
    this.doing = null;
    this.started = false;
    /** @type {[number, number]} */
    this.origin = [0, 0];
    element.addEventListener("pointerdown", (event) => this.down(event));
    element.addEventListener("pointermove", (event) => this.move(event));
    element.addEventListener("pointerup", (event) => this.up(event, true));
    element.addEventListener("pointercancel", (event) => this.up(event, false));
    element.addEventListener("pointerleave", () => hands.hover(null));
    element.addEventListener("contextmenu", (event) => event.preventDefault());
    element.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
    element.addEventListener("keydown", (event) => this.space(event, true));
    element.addEventListener("keyup", (event) => this.space(event, false));
    element.addEventListener("blur", () => (this.spaced = false));
  }

  /** @param {MouseEvent} event @returns {[number, number]} */
  place(event) {
    const box = this.element.getBoundingClientRect();
    return [event.clientY - box.top, event.clientX - box.left];
  }

  /** @param {KeyboardEvent} event @param {boolean} pressed */
  space(event, pressed) {
    if (event.key !== " ") return;
    this.spaced = pressed;
    event.preventDefault();
  }

  /** @param {PointerEvent} event @returns {Tool} */
  meant(event) {
    if (event.button === 1 || this.spaced) return "pan";
    if (event.button === 2) return "window";
    const tool = this.hands.tool();
    return tool === "field" && event.shiftKey ? "projective" : tool;
  }

  /** @param {PointerEvent} event */
  down(event) {
    this.element.setPointerCapture(event.pointerId);
    const place = this.place(event);
    this.fingers.set(event.pointerId, place);
    if (this.fingers.size > 1) {
      this.end();
      return;
    }
    if (event.button === 1) event.preventDefault();
    this.doing = this.meant(event);
    this.origin = place;
    this.started = false;
    // A finger may be the first of two.
    if (event.pointerType !== "touch") this.begin(place);
  }

  /** @param {[number, number]} place */
  begin(place) {
    this.started = true;
    if (this.doing === "field" || this.doing === "projective") this.hands.point(this.doing, ...place, "start");
  }

  /** @param {PointerEvent} event */
  move(event) {
    const place = this.place(event);
    const last = this.fingers.get(event.pointerId);
    this.hands.hover(place);
    if (!last) return;
    if (this.fingers.size === 2) {
      this.pinch(event.pointerId, last, place);
      return;
    }
    if (!this.doing) return;
    if (!this.started && Math.hypot(place[0] - this.origin[0], place[1] - this.origin[1]) < STILL) return;
    if (!this.started) this.begin(this.origin);
    this.fingers.set(event.pointerId, place);
    const [down, right] = [place[0] - last[0], place[1] - last[1]];
    if (this.doing === "pan") this.hands.pan(down, right);
    else if (this.doing === "window") this.hands.window(down, right);
    else this.hands.point(this.doing, ...place, "move");
  }

  /** @param {number} finger @param {[number, number]} last @param {[number, number]} place */
  pinch(finger, last, place) {
    const other = [...this.fingers].find(([id]) => id !== finger)?.[1];
    if (!other) return;
    this.fingers.set(finger, place);
    const apart = (/** @type {[number, number]} */ one) =>
      Math.max(10, Math.hypot(one[0] - other[0], one[1] - other[1]));
    this.hands.pan((place[0] - last[0]) / 2, (place[1] - last[1]) / 2);
    this.hands.zoom(apart(place) / apart(last), (place[0] + other[0]) / 2, (place[1] + other[1]) / 2);
  }

  /** @param {PointerEvent} event @param {boolean} meant */
  up(event, meant) {
    const place = this.fingers.get(event.pointerId);
    this.fingers.delete(event.pointerId);
    if (!place || !this.doing) return;
    if (!this.started && meant) this.begin(place);
    this.end();
  }

  end() {
    if (this.started && (this.doing === "field" || this.doing === "projective"))
      this.hands.point(this.doing, ...this.origin, "end");
    this.doing = null;
    this.started = false;
  }

  /** @param {WheelEvent} event */
  wheel(event) {
    event.preventDefault();
    const lines = event.deltaMode === 1 ? 16 : 1;
    this.hands.zoom(Math.exp(-event.deltaY * lines * 0.0018), ...this.place(event));
  }
}
