/** @import { OverlayState, PaneState, Session, State, Target, View, WindowState } from "./types.js" */

/** @type {WindowState} */
const WINDOW = { preset: "suggested", center: 0, width: 0, inverted: false };
/** @type {OverlayState} */
const OVERLAY = {
  shown: true,
  opacity: 0.75,
  colors: "viridis",
  scale: "root",
  contours: true,
  theory: true,
  curves: "linear",
};

/** @param {string[]} definitions @returns {string} */
const usualOf = (definitions) => (definitions.includes("abs") ? "abs" : definitions[0]);

/** @param {Session} session @param {string} source @returns {PaneState} */
export function freshPane(session, source) {
  const index = Number(source.slice(1));
  const file = source[0] === "f";
  return {
    source,
    image: file ? -1 : session.select.image,
    layer: file ? session.files[index].layer : session.networks[index].default_layer,
    channel: "all",
    definition: usualOf(file ? session.files[index].definitions : session.definitions.map(({ name }) => name)),
    input: 0,
    subset: file ? session.files[index].subsets[0].name : "",
    at: null,
    view: null,
  };
}

/** @param {Session} session @returns {string[]} networks that can be run, then files */
export function sourcesOf(session) {
  const networks = session.images.length ? session.networks.map((_, index) => `n${index}`) : [];
  return [...networks, ...session.files.map((_, index) => `f${index}`)];
}

/** @param {Session} session @returns {State} */
export function freshState(session) {
  const sources = sourcesOf(session);
  const first = sources.includes(`n${session.select.network}`) ? `n${session.select.network}` : sources[0];
  return {
    panes: first ? [freshPane(session, first)] : [],
    active: 0,
    linked: true,
    window: { ...WINDOW },
    overlay: { ...OVERLAY },
  };
}

/** @param {number} value */
const short = (value) => String(Number(value.toPrecision(6)));

/**
 * @param {PaneState} pane
 * @param {PaneState} fresh
 * @returns {Map<string, string>} what differs from a fresh pane
 */
function writePane(pane, fresh) {
  const words = new Map([["source", pane.source]]);
  for (const name of /** @type {const} */ (["image", "layer", "channel", "definition", "subset", "input"]))
    if (pane[name] !== fresh[name]) words.set(name, String(pane[name]));
  if (pane.at) words.set(pane.at.kind, `${short(pane.at.y)},${short(pane.at.x)}`);
  if (pane.at?.unit) words.set("unit", pane.at.unit.join(","));
  if (pane.view) words.set("view", [pane.view.scale, pane.view.y, pane.view.x].map(short).join(","));
  return words;
}

/** @param {Iterable<[string, string]>} words @returns {string} with commas as they are */
const joined = (words) =>
  [...words].map(([name, value]) => `${name}=${encodeURIComponent(value).replaceAll("%2C", ",")}`).join("&");

/** @param {string | null} text @param {number} count @returns {number[] | null} */
function readNumbers(text, count) {
  const numbers = (text ?? "").split(",").map(Number);
  return text && numbers.length === count && numbers.every(Number.isFinite) ? numbers : null;
}

/** @param {URLSearchParams} words @returns {Target | null} */
function readTarget(words) {
  for (const kind of /** @type {const} */ (["field", "projective"])) {
    const at = readNumbers(words.get(kind), 2);
    if (at)
      return {
        kind,
        y: at[0],
        x: at[1],
        unit: /** @type {[number, number] | null} */ (readNumbers(words.get("unit"), 2)),
      };
  }
  return null;
}

/** @param {URLSearchParams} words @returns {View | null} */
function readView(words) {
  const view = readNumbers(words.get("view"), 3);
  return view && view[0] > 0 ? { scale: view[0], y: view[1], x: view[2] } : null;
}

/**
 * @param {Session} session
 * @param {URLSearchParams} words
 * @returns {PaneState | null} what the session still has
 */
function readPane(session, words) {
  const source = words.get("source") ?? "";
  if (!sourcesOf(session).includes(source)) return null;
  const pane = freshPane(session, source);
  const index = Number(source.slice(1));
  const file = source[0] === "f" ? session.files[index] : null;
  const among = (/** @type {string | null} */ word, /** @type {string[]} */ list, /** @type {string} */ usual) =>
    word !== null && list.includes(word) ? word : usual;
  const names = (/** @type {{name: string}[]} */ list) => list.map((one) => one.name);
  const image = Number(words.get("image") ?? pane.image);
  if ((file ? file.images : session.images)[image] || (file && image === -1)) pane.image = image;
  pane.definition = among(
    words.get("definition"),
    file ? file.definitions : names(session.definitions),
    pane.definition,
  );
  if (file) pane.subset = among(words.get("subset"), names(file.subsets), pane.subset);
  else pane.layer = among(words.get("layer"), names(session.networks[index].layers), pane.layer);
  pane.channel = words.get("channel") ?? pane.channel;
  const input = Number(words.get("input") ?? 0);
  if (!file && session.networks[index].inputs?.[input] !== undefined) pane.input = input;
  pane.at = file ? null : readTarget(words);
  pane.view = readView(words);
  return pane;
}

/** @param {Session} session @param {State} state @returns {string} the state as the fragment of an address */
export function writeState(session, state) {
  /** @type {Map<string, string>} */
  const words = new Map();
  if (state.active) words.set("active", String(state.active));
  if (!state.linked) words.set("linked", "false");
  const { window, overlay } = state;
  if (window.preset === "custom") words.set("window", `${short(window.center)},${short(window.width)}`);
  else if (window.preset !== WINDOW.preset) words.set("window", window.preset);
  if (window.inverted) words.set("inverted", "true");
  for (const name of /** @type {(keyof OverlayState)[]} */ (Object.keys(OVERLAY)))
    if (overlay[name] !== OVERLAY[name]) words.set(name, String(overlay[name]));
  const panes = state.panes.map((pane) => writePane(pane, freshPane(session, pane.source)));
  return [words, ...panes]
    .filter((one) => one.size)
    .map(joined)
    .join("&");
}

/**
 * @param {string} fragment
 * @returns {URLSearchParams[]} the words of the page, then those of each pane, which begin with its source
 */
function parts(fragment) {
  const found = [new URLSearchParams()];
  for (const [name, value] of new URLSearchParams(fragment.replace(/^#/, ""))) {
    if (name === "source") found.push(new URLSearchParams());
    found[found.length - 1].set(name, value);
  }
  return found;
}

/** @param {string | null} text @returns {Partial<WindowState>} */
function readWindow(text) {
  const numbers = readNumbers(text, 2);
  if (numbers) return { preset: "custom", center: numbers[0], width: numbers[1] };
  return text ? { preset: text } : {};
}

/** @param {Session} session @param {string} fragment @returns {State} */
export function readState(session, fragment) {
  const [words, ...places] = parts(fragment);
  const state = freshState(session);
  const panes = places
    .map((place) => readPane(session, place))
    .filter((pane) => pane !== null)
    .slice(0, 2);
  if (panes.length) state.panes = panes;
  state.active = Math.min(Math.max(0, Number(words.get("active") ?? 0) || 0), Math.max(0, state.panes.length - 1));
  state.linked = words.get("linked") !== "false";
  Object.assign(state.window, readWindow(words.get("window")), { inverted: words.get("inverted") === "true" });
  for (const [name, usual] of Object.entries(OVERLAY)) {
    const word = words.get(name);
    if (word === null) continue;
    const value = typeof usual === "number" ? Number(word) : typeof usual === "boolean" ? word === "true" : word;
    if (!Number.isNaN(value)) Object.assign(state.overlay, { [name]: value });
  }
  if (!(state.overlay.colors in session.colors)) state.overlay.colors = OVERLAY.colors;
  return state;
}
