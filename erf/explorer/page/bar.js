import { openHelp, openLines } from "./dialogs.js";
import { find } from "./dom.js";
/** @import { App } from "./app.js" */
/** @import { Panes } from "./panes.js" */

const STEP = 1.4;

/** @param {string} id @param {() => void} act */
const onClick = (id, act) => find(id, HTMLButtonElement).addEventListener("click", act);

/** @param {App} app @param {(pane: import("./pane.js").Pane) => import("./types.js").View | null} view */
function setView(app, view) {
  const { pane } = app;
  if (pane) app.links.setView(pane.index, view(pane));
}

/** About the pointer, else about the middle. @param {App} app @param {number} factor */
function zoom(app, factor) {
  setView(app, (pane) => {
    const { geometry } = pane;
    const pointed = app.cursor?.pane === pane.index ? pane.pixelOf(app.cursor) : pane.middle();
    return geometry.zoomed(factor, geometry.toY(pointed[0]), geometry.toX(pointed[1]));
  });
}

function chooseTheme() {
  const select = find("theme", HTMLSelectElement);
  const set = () => (document.documentElement.dataset.theme = select.value);
  // Storage may be closed to a page; the choice then lasts as long as the page.
  try {
    select.value = localStorage.getItem("theme") ?? "auto";
  } catch {
    select.value = "auto";
  }
  set();
  select.addEventListener("change", () => {
    set();
    try {
      localStorage.setItem("theme", select.value);
    } catch {
      return;
    }
  });
}

/** The buttons above the image. @param {App} app @param {Panes} panes */
export function bindBar(app, panes) {
  chooseTheme();
  onClick("zoom-in", () => zoom(app, STEP));
  onClick("zoom-out", () => zoom(app, 1 / STEP));
  onClick("zoom-fit", () => setView(app, () => null));
  onClick("zoom-one", () =>
    setView(app, ({ geometry }) =>
      geometry.zoomed(1 / devicePixelRatio / geometry.zoom, geometry.port[0] / 2, geometry.port[1] / 2),
    ),
  );
  onClick("zoom-field", () =>
    setView(app, ({ field, geometry, state }) =>
      field?.center && field.contours ? geometry.around(...field.center, field.contours.extent) : state.view,
    ),
  );
  onClick("two-panes", () => panes.toggle());
  onClick("linked", () =>
    app.store.update((state) => {
      state.linked = !state.linked;
      const { view } = state.panes[state.active];
      if (state.linked) for (const pane of state.panes) pane.view = view && { ...view };
    }),
  );
  onClick("open-help", openHelp);
  onClick("reproduce", () => void openLines(app));
  app.store.watchers.push(() => {
    const { panes: shown, linked } = app.store.state;
    find("two-panes", HTMLButtonElement).setAttribute("aria-pressed", String(shown.length > 1));
    find("linked", HTMLButtonElement).setAttribute("aria-pressed", String(linked));
    find("linked", HTMLButtonElement).disabled = shown.length < 2;
  });
}
