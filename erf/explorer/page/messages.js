import { find } from "./dom.js";

/** One line for errors, one for screen readers. */
export class Messages {
  constructor() {
    this.box = find("error", HTMLElement);
    this.text = find("error-text", HTMLElement);
    this.live = find("live", HTMLElement);
    this.stopped = find("gone", HTMLElement);
    find("error-close", HTMLButtonElement).addEventListener("click", () => this.clear());
  }

  /** @param {string} words */
  error(words) {
    this.text.textContent = words;
    this.box.hidden = false;
  }

  clear() {
    this.box.hidden = true;
    this.text.textContent = "";
  }

  gone() {
    this.stopped.hidden = false;
  }

  /** @param {string} words */
  announce(words) {
    this.live.textContent = words;
  }
}
