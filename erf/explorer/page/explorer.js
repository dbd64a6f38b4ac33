import { getJson } from "./api.js";
import { App } from "./app.js";
import { bindBar } from "./bar.js";
import { Controls } from "./controls.js";
import { Exports } from "./exports.js";
import { Images } from "./images.js";
import { Keyboard } from "./keyboard.js";
import { Messages } from "./messages.js";
import { NumbersTable } from "./numbers.js";
import { Panes } from "./panes.js";
import { Store } from "./store.js";
import { Tray } from "./tray.js";
/** @import { Session } from "./types.js" */

/** @param {Messages} messages */
async function start(messages) {
  const session = /** @type {Session} */ (await getJson("api/state"));
  document.title = `${session.title} · ERF explorer`;
  const store = new Store(session);
  const app = new App(session, store, messages);
  const panes = new Panes(app);
  const controls = new Controls(app);
  const images = new Images(app);
  new NumbersTable(app);
  new Tray(app);
  new Exports(app);
  new Keyboard(app, { images, controls, panes });
  bindBar(app, panes);
  if (!store.state.panes.length) messages.error("There is nothing to show: neither images nor ERF files were given.");
  store.tell();
}

const messages = new Messages();
start(messages).catch((error) => messages.error(error.message));
