/** @import { Raster, Box } from "./types.js" */

/** An error that the server explains in one line. */
export class Failure extends Error {
  /** @param {string} message @param {number} status */
  constructor(message, status) {
    super(message);
    this.status = status;
  }

  /** A newer request has taken the place of this one. */
  get superseded() {
    return this.status === 409;
  }

  get gone() {
    return this.status === 0;
  }
}

/** @param {string} path @param {RequestInit} [options] @returns {Promise<Response>} */
async function ask(path, options) {
  const reply = await fetch(path, options).catch(() => {
    throw new Failure("The explorer has been stopped.", 0);
  });
  if (reply.ok) return reply;
  const told = await reply.json().catch(() => ({}));
  throw new Failure(String(told.error ?? `${reply.status} ${reply.statusText}`), reply.status);
}

/** @param {string} path @returns {Promise<any>} */
export const getJson = async (path) => (await ask(path)).json();

/** @param {string} path @param {object} body @returns {Promise<any>} */
export async function post(path, body) {
  const headers = { "Content-Type": "application/json" };
  return (await ask(path, { method: "POST", headers, body: JSON.stringify(body) })).json();
}

/** @param {string} path @returns {Promise<Blob>} */
export const getBlob = async (path) => (await ask(path)).blob();

/** @param {Headers} headers @param {string} name @returns {number[]} */
const listed = (headers, name) => (headers.get(name) ?? "").split(",").filter(Boolean).map(Number);

/**
 * @param {string} path
 * @param {number} level
 * @returns {Promise<{raster: Raster, numbers: (name: string) => number[]}>}
 */
export async function getRaster(path, level) {
  const reply = await ask(path);
  const data = new Uint16Array(await reply.arrayBuffer());
  const [rows, columns, depth = 1] = listed(reply.headers, "X-Shape");
  const box = /** @type {Box} */ (listed(reply.headers, "X-Box"));
  return { raster: { data, rows, columns, depth, box, level }, numbers: (name) => listed(reply.headers, name) };
}

/** @param {string} path @param {Record<string, string | number | null>} query */
export function address(path, query) {
  const words = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) if (value !== null && value !== "") words.set(name, String(value));
  return `${path}?${words}`;
}
