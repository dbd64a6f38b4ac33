import { fill, find } from "./dom.js";
import { PRESETS } from "./picture.js";
import { freshPane, sourcesOf } from "./state.js";
/** @import { App } from "./app.js" */
/** @import { Layer, OverlayState, PaneState } from "./types.js" */

const select = (/** @type {string} */ id) => find(id, HTMLSelectElement);
const input = (/** @type {string} */ id) => find(id, HTMLInputElement);

/** @param {Layer} layer @returns {string} */
export function fieldSize(layer) {
  if (!layer.field) return "infinite";
  const [height, width] = layer.field;
  return height === width ? `${height} px` : `${height} x ${width} px`;
}

/** @param {Layer} layer @returns {string} */
function layerNote(layer) {
  const [down, right] = layer.stride;
  const stride = down === right ? `${down}` : `${down} x ${right}`;
  const by = layer.unbounded_by ? ` by ${layer.unbounded_by}` : "";
  return `${layer.module}, ${layer.channels} channels of ${layer.shape.join(" x ")} units, stride ${stride} px, theoretical field ${fieldSize(layer)}${by}`;
}

/** Settings of the active pane and of the overlay. */
export class Controls {
  /** @param {App} app */
  constructor(app) {
    this.app = app;
    this.bindPane();
    this.bindOverlay();
    this.bindWindow();
    app.store.watchers.push(() => this.sync());
    app.listeners.push(() => this.syncWindow());
  }

  bindPane() {
    const { store } = this.app;
    const chosen = (/** @type {string} */ id, /** @type {(pane: PaneState, value: string) => void} */ change) =>
      select(id).addEventListener("change", () => store.updatePane((pane) => change(pane, select(id).value), true));
    select("source").addEventListener("change", () => this.setSource(select("source").value));
    select("layer").addEventListener("change", () => this.setLayer(select("layer").selectedIndex));
    input("depth").addEventListener("input", () => this.setLayer(Number(input("depth").value)));
    chosen("definition", (pane, value) => (pane.definition = value));
    chosen("subset", (pane, value) => {
      pane.subset = value;
      pane.image = -1;
    });
    chosen("input", (pane, value) => (pane.input = Number(value)));
    chosen("profile", (pane, value) => (pane.image = Number(value)));
    chosen(
      "channel",
      (pane, value) => (pane.channel = value === "one" ? String(Number(input("channel-index").value) || 0) : value),
    );
    input("channel-index").addEventListener("change", () =>
      store.updatePane((pane) => (pane.channel = String(Number(input("channel-index").value) || 0)), true),
    );
  }

  bindOverlay() {
    /** @param {Partial<OverlayState>} part */
    const set = (part) => this.app.store.update(({ overlay }) => Object.assign(overlay, part));
    for (const id of ["scale", "colors", "curves"])
      select(id).addEventListener("change", () => set({ [id]: select(id).value }));
    for (const id of ["shown", "contours", "theory"])
      input(id).addEventListener("change", () => set({ [id]: input(id).checked }));
    input("opacity").addEventListener("input", () => set({ opacity: Number(input("opacity").value) }));
  }

  bindWindow() {
    const { store } = this.app;
    select("preset").addEventListener("change", () =>
      store.update(({ window }) => {
        const [center, width] = this.app.pane?.picture?.window(window) ?? [0, 1];
        Object.assign(window, { preset: select("preset").value, center, width });
      }),
    );
    for (const id of ["center", "width"])
      input(id).addEventListener("change", () =>
        store.update(({ window }) => {
          const [center, width] = [Number(input("center").value), Math.max(1e-9, Number(input("width").value))];
          Object.assign(window, { preset: "custom", center, width });
        }),
      );
    input("inverted").addEventListener("change", () =>
      store.update(({ window }) => (window.inverted = input("inverted").checked)),
    );
  }

  /** @param {string} source */
  setSource(source) {
    const { session, store } = this.app;
    store.updatePane((pane) => {
      const fresh = freshPane(session, source);
      const network = source[0] === "n" ? session.networks[Number(source.slice(1))] : null;
      if (network && pane.source[0] === "n") {
        const { image, definition, channel, view } = pane;
        const layer = network.layers.some((one) => one.name === pane.layer) ? pane.layer : fresh.layer;
        const old = session.networks[Number(pane.source.slice(1))].size;
        // A place in one frame means another one in a frame of another size.
        const at = pane.at && old.join() === network.size.join() ? { ...pane.at, unit: null } : null;
        Object.assign(fresh, { image, definition, channel, view, layer, at });
      }
      Object.assign(pane, fresh);
    }, true);
    const { panes, active, linked } = store.state;
    const at = panes[1 - active]?.at;
    if (linked && at && !panes[active].at) this.app.links.setTarget(1 - active, at, false);
  }

  /** @param {number} depth */
  setLayer(depth) {
    const layers = this.app.pane?.network?.layers ?? [];
    const layer = layers[Math.min(layers.length - 1, Math.max(0, depth))];
    if (!layer || layer.name === this.app.store.pane?.layer) return;
    this.app.store.updatePane((pane) => {
      pane.layer = layer.name;
      if (pane.at) pane.at.unit = null;
      if (Number(pane.channel) >= layer.channels) pane.channel = "all";
    }, true);
  }

  /** @param {number} step */
  stepLayer(step) {
    const layers = this.app.pane?.network?.layers ?? [];
    this.setLayer(layers.findIndex((layer) => layer.name === this.app.store.pane?.layer) + step);
  }

  sync() {
    const { pane, store } = this.app;
    const state = store.pane;
    if (!pane || !state) return;
    this.syncSource(state);
    find("field-of", HTMLElement).textContent = this.app.panes.length > 1 ? ` of the ${pane.ordinal()}` : "";
    const stored = Boolean(pane.file);
    for (const part of document.querySelectorAll("[data-for]"))
      if (part instanceof HTMLElement) part.hidden = (part.dataset.for === "file") !== stored;
    if (stored) this.syncFile(state);
    else this.syncNetwork(state);
    this.syncOverlay();
    this.syncWindow();
  }

  /** @param {PaneState} state */
  syncSource(state) {
    const { networks, files } = this.app.session;
    const nameOf = (/** @type {string} */ source) =>
      (source[0] === "f" ? files : networks)[Number(source.slice(1))].name;
    fill(
      select("source"),
      sourcesOf(this.app.session).map((source) => [source, nameOf(source)]),
      state.source,
    );
    const { file, network } = this.app.pane ?? {};
    find("source-note", HTMLElement).textContent = file
      ? [
          file.title,
          `${file.size.join(" x ")} px`,
          `layer ${file.layer}`,
          file.unit ? `unit ${file.unit.join(", ")}` : "",
        ]
          .filter(Boolean)
          .join(", ")
      : (network?.description ?? "");
  }

  /** @param {PaneState} state */
  syncNetwork(state) {
    const { network, layer } = this.app.pane ?? {};
    if (!network || !layer) return;
    fill(
      select("layer"),
      network.layers.map((one) => [one.name, `${one.name} · ${fieldSize(one)}`]),
      layer.name,
    );
    const depth = input("depth");
    depth.max = String(network.layers.length - 1);
    depth.value = String(network.layers.indexOf(layer));
    depth.setAttribute("aria-valuetext", `${layer.name}, field ${fieldSize(layer)}`);
    find("layer-note", HTMLElement).textContent = layerNote(layer);
    const one = state.channel !== "all" && state.channel !== "signs";
    select("channel").value = one ? "one" : state.channel;
    const index = input("channel-index");
    index.hidden = !one;
    index.max = String(layer.channels - 1);
    if (one) index.value = state.channel;
    const inputs = network.inputs ?? [];
    fill(
      select("input"),
      inputs.map((name, order) => [String(order), name]),
      String(state.input),
    );
    for (const part of document.querySelectorAll("[data-for=network].input"))
      if (part instanceof HTMLElement) part.hidden = inputs.length < 2;
    const projective = state.at?.kind === "projective";
    this.syncDefinition(
      this.app.session.definitions.map(({ name }) => name),
      state.definition,
    );
    select("definition").disabled = projective;
    if (projective) find("definition-note", HTMLElement).textContent = "Projective fields are sums of the gradient itself.";
  }

  /** @param {PaneState} state */
  syncFile(state) {
    const file = this.app.pane?.file;
    if (!file) return;
    fill(
      select("subset"),
      file.subsets.map(({ name, count }) => [name, `${name} (${count})`]),
      state.subset,
    );
    const images = file.images.map((image, index) => [
      String(index),
      [image.name, image.laterality, image.view].filter(Boolean).join(" · "),
    ]);
    fill(
      select("profile"),
      /** @type {[string, string][]} */ ([["-1", "mean of the subset"], ...images]),
      String(state.image),
    );
    this.syncDefinition(file.definitions, state.definition);
    select("definition").disabled = false;
  }

  /** @param {string[]} names @param {string} value */
  syncDefinition(names, value) {
    fill(
      select("definition"),
      names.map((name) => [name, name]),
      value,
    );
    const found = this.app.session.definitions.find((definition) => definition.name === value);
    find("definition-note", HTMLElement).textContent = found ? `From the gradient: ${found.description}` : "";
  }

  syncOverlay() {
    const { overlay } = this.app.store.state;
    const maps = Object.keys(this.app.session.colors).filter((name) => name !== "RdBu_r");
    fill(
      select("colors"),
      maps.map((name) => [name, name]),
      overlay.colors,
    );
    select("scale").value = overlay.scale;
    select("curves").value = overlay.curves;
    input("opacity").value = String(overlay.opacity);
    for (const id of /** @type {const} */ (["shown", "contours", "theory"])) input(id).checked = overlay[id];
  }

  syncWindow() {
    const { window } = this.app.store.state;
    const custom = /** @type {[string, string][]} */ (window.preset === "custom" ? [["custom", "custom"]] : []);
    fill(select("preset"), [.../** @type {[string, string][]} */ (PRESETS), ...custom], window.preset);
    input("inverted").checked = window.inverted;
    const found = this.app.pane?.picture?.window(window);
    for (const [index, id] of ["center", "width"].entries())
      if (found && document.activeElement !== input(id)) input(id).value = String(Number(found[index].toPrecision(6)));
  }
}
