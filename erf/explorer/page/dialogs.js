import { getJson } from "./api.js";
import { find, make } from "./dom.js";
/** @import { App } from "./app.js" */

const KEYS = [
  ["Click, drag", "field of the unit nearest to the pixel, live"],
  ["Shift and click", "units of the layer that see the pixel"],
  ["Wheel, pinch, + −", "zoom about the pointer"],
  ["Space and drag, middle button", "move the image"],
  ["Right button and drag", "width (right, left) and centre (up, down) of the grey scale"],
  ["A S H W", "tools: field, projective, pan, window"],
  ["Enter", "unit in the middle of the image area"],
  ["X", "switch between field and projective field at this place"],
  ["Arrow keys", "next unit; with Shift, ten units; with Alt, move the image"],
  ["Page Up, Page Down", "shallower, deeper layer"],
  ["N P, ] [", "next, previous image"],
  ["F, 1, Z", "fit; one image pixel per screen pixel; fit the field"],
  ["O C T", "field, contours, theoretical field on and off"],
  ["I", "invert the grey scale"],
  ["K", "keep the field in the tray"],
  ["2, L", "two panes; link them"],
  ["Tab", "to the other pane and to all settings"],
  ["?", "this list"],
];

/** @param {HTMLDialogElement} dialog @param {string} title @param {...Node} inside */
function open(dialog, title, ...inside) {
  const close = make("button", {}, "Close");
  close.addEventListener("click", () => dialog.close());
  dialog.replaceChildren(
    make("h2", { id: `${dialog.id}-title` }, title),
    ...inside,
    make("div", { class: "buttons" }, close),
  );
  dialog.showModal();
}

export function openHelp() {
  const rows = KEYS.map(([keys, words]) => make("tr", {}, make("th", { scope: "row" }, keys), make("td", {}, words)));
  open(find("help", HTMLDialogElement), "Keys and gestures", make("table", {}, make("tbody", {}, ...rows)));
}

/** @param {string} name @param {string} text @param {App} app @returns {HTMLElement} */
function copyable(name, text, app) {
  const button = make("button", { "aria-label": `Copy: ${name}` }, "Copy");
  const block = make("pre", { tabindex: "0", role: "region", "aria-label": name }, text);
  button.addEventListener("click", () => {
    navigator.clipboard.writeText(text).then(
      () => {
        button.textContent = "Copied";
        app.announce(`${name} copied`);
      },
      // Without the right to write to the clipboard, the text is at least selected.
      () => getSelection()?.selectAllChildren(block),
    );
  });
  return make("div", { class: "lines" }, make("h3", {}, name), button, block);
}

/** The lines that reproduce the field of the active pane. @param {App} app */
export async function openLines(app) {
  const id = app.pane?.field?.reply?.id;
  if (!id) return;
  try {
    const { command, python } = await getJson(`api/fields/${encodeURIComponent(id)}/reproduce`);
    const parts = [
      [app.session.images.length > 1 ? "Command line: the mean over all images" : "Command line", command],
      ["Python: the field in this image", python],
    ].filter(([, text]) => text);
    const blocks = parts.map(([name, text]) => copyable(name, String(text), app));
    open(find("lines", HTMLDialogElement), "Lines that reproduce this field", ...blocks);
  } catch (error) {
    app.fail(error);
  }
}
