import { address } from "./api.js";
import { find, make } from "./dom.js";
/** @import { App } from "./app.js" */
/** @import { Image } from "./types.js" */

/** The list of images, or of a file's profiles. */
export class Images {
  /** @param {App} app */
  constructor(app) {
    this.app = app;
    this.place = find("images", HTMLElement);
    this.key = "";
    /** @type {HTMLButtonElement[]} */
    this.buttons = [];
    app.store.watchers.push(() => this.sync());
  }

  sync() {
    const { pane, store } = this.app;
    if (!pane || !store.pane) return;
    const key = store.pane.source;
    if (key !== this.key) this.fillFor(key);
    const shown = store.pane.image + (pane.file ? 1 : 0);
    this.buttons.forEach((button, index) => {
      const current = index === shown;
      if (current === (button.getAttribute("aria-current") === "true")) return;
      button.setAttribute("aria-current", String(current));
      if (current) button.scrollIntoView({ block: "nearest", inline: "nearest" });
    });
  }

  /** @param {string} key */
  fillFor(key) {
    this.key = key;
    const { pane, session } = this.app;
    const file = pane?.file;
    const images = file ? file.images : session.images;
    this.buttons = images.map((image, index) => this.entry(image, index, !file));
    if (file) this.buttons.unshift(this.choice(-1, make("span", {}, "mean of the subset")));
    this.place.replaceChildren(make("ol", {}, ...this.buttons.map((button) => make("li", {}, button))));
    this.place.hidden = this.buttons.length < 2;
  }

  /** @param {Image} image @param {number} index @param {boolean} pictured @returns {HTMLButtonElement} */
  entry(image, index, pictured) {
    const words = make("span", {}, image.name);
    const side = [image.laterality, image.view].filter(Boolean).join(" ");
    const parts = [words, make("small", {}, side)];
    if (!pictured) return this.choice(index, ...parts);
    const source = address(`api/images/${image.id}/thumbnail`, { network: this.app.pane?.network?.id ?? 0 });
    const picture = make("img", { src: source, alt: "", loading: "lazy" });
    picture.addEventListener("error", () => picture.classList.add("missing"));
    return this.choice(index, picture, ...parts);
  }

  /** @param {number} index @param {...Node} parts @returns {HTMLButtonElement} */
  choice(index, ...parts) {
    const button = make(
      "button",
      {
        "aria-current": "false",
        title: parts
          .map((part) => part.textContent)
          .filter(Boolean)
          .join(" · "),
      },
      ...parts,
    );
    button.addEventListener("click", () => this.app.links.setImage(this.app.store.state.active, index));
    return button;
  }

  /** @param {number} step */
  step(step) {
    const { pane, session, store } = this.app;
    if (!pane || !store.pane) return;
    const [first, count] = pane.file ? [-1, pane.file.images.length] : [0, session.images.length];
    const index = Math.min(count - 1, Math.max(first, store.pane.image + step));
    if (index !== store.pane.image) this.app.links.setImage(store.state.active, index);
  }
}
