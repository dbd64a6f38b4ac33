import { getBlob } from "./api.js";
import { find, make } from "./dom.js";
/** @import { App } from "./app.js" */
/** @import { Pane } from "./pane.js" */

const HEAD = 26;

/** @param {Blob} blob @param {string} name */
function save(blob, name) {
  const source = URL.createObjectURL(blob);
  make("a", { href: source, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(source), 1000);
}

/**
 * @param {Pane[]} panes
 * @returns {Promise<Blob | null>} all panes beside each other, each with its caption
 */
function picture(panes) {
  const ratio = devicePixelRatio;
  const stages = panes.map((pane) => [...pane.stage.querySelectorAll("canvas")]);
  const canvas = make("canvas");
  canvas.width = stages.reduce((sum, [first]) => sum + first.width, 0);
  canvas.height = Math.max(...stages.map(([first]) => first.height)) + HEAD * ratio;
  const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
  context.fillStyle = "#0b0d10";
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.font = `${12 * ratio}px system-ui, sans-serif`;
  context.textBaseline = "middle";
  let left = 0;
  stages.forEach((layers, index) => {
    context.fillStyle = "#e8ebef";
    context.fillText(
      panes[index].caption.textContent ?? "",
      left + 8 * ratio,
      (HEAD / 2) * ratio,
      layers[0].width - 16 * ratio,
    );
    for (const layer of layers) if (layer.width) context.drawImage(layer, left, HEAD * ratio);
    left += layers[0].width;
  });
  return new Promise((resolve) => canvas.toBlob(resolve));
}

/** Files of what is shown. */
export class Exports {
  /** @param {App} app */
  constructor(app) {
    this.app = app;
    for (const button of find("exports", HTMLElement).querySelectorAll("button"))
      button.addEventListener("click", () => void this.write(button));
  }

  /** @param {HTMLButtonElement} button */
  async write(button) {
    const kind = button.dataset.export ?? "";
    const done = this.app.pane?.contents.hint("writing the file");
    button.disabled = true;
    button.ariaBusy = "true";
    this.app.announce("writing the file");
    try {
      const blob = kind === "view" ? await picture(this.app.panes) : await getBlob(this.path(kind));
      if (blob) save(blob, this.name(kind === "view" ? "view.png" : kind));
      this.app.announce("file written");
    } catch (error) {
      this.app.fail(error);
    }
    done?.();
    button.ariaBusy = "false";
    button.disabled = false;
  }

  /** @param {string} kind @returns {string} */
  path(kind) {
    const id = encodeURIComponent(this.app.pane?.field?.reply?.id ?? "");
    return kind === "npy" ? `api/fields/${id}/map.npy` : `api/fields/${id}/export?format=${kind}`;
  }

  /** @param {string} ending @returns {string} */
  name(ending) {
    const { pane } = this.app;
    const reply = pane?.field?.reply;
    const shown = reply ? [reply.layer, ...(reply.unit ?? reply.pixel ?? [])] : [];
    const parts = [pane?.name() ?? "", ...shown].map(String);
    return `${parts.join("-").replace(/[^\w.-]+/g, "_")}.${ending}`;
  }
}
