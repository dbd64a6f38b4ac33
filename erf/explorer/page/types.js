/**
 * Types that several modules share: the replies of the server, and the state of the page.
 *
 * @typedef {[number, number, number, number]} Box top, left, bottom, right in pixels of the frame, half-open
 * @typedef {{name: string, module: string, channels: number, shape: [number, number], stride: [number, number],
 *   field: [number, number] | null, unbounded_by: string}} Layer
 * @typedef {{id: number, name: string, description: string, size: [number, number], default_layer: string,
 *   inputs?: string[], layers: Layer[]}} Network
 * @typedef {{id: number, name: string, laterality: string, view: string}} Image
 * @typedef {{id: number, name: string, title: string, size: [number, number], layer: string,
 *   unit: [number, number] | null, center: [number, number], field: Box | null,
 *   subsets: {name: string, count: number}[], definitions: string[], images: Image[]}} StoredFile
 * @typedef {{name: string, unit: string, description: string}} Measure
 * @typedef {{version: string, title: string, networks: Network[], images: Image[], files: StoredFile[],
 *   definitions: {name: string, description: string}[], measures: Measure[], colors: Record<string, string>,
 *   select: {network: number, image: number}}} Session what the explorer was started with
 *
 * @typedef {{id: string, kind: "field" | "projective", network: number, image: number, layer: string,
 *   channel: string | number, definition?: string, unit?: [number, number], center?: [number, number],
 *   pixel?: [number, number], shape?: [number, number], theory?: Box | null, box: Box, max: number,
 *   signed: boolean, seconds: number, way: string}} FieldReply
 * @typedef {{name: string, value: number | null, unit: string, text: string, low: number | null,
 *   high: number | null}} MeasureValue
 * @typedef {{share: number, lines: number[][]}} Contour
 * @typedef {{measures: MeasureValue[], curves: {x: number[], y: number[]}, contours: Contour[],
 *   check: {text: string, ok: boolean} | null}} Numbers
 *
 * @typedef {{data: Uint16Array, rows: number, columns: number, depth: number, box: Box, level: number,
 *   peak?: number}} Raster an array that covers a box of the frame
 *
 * @typedef {{scale: number, y: number, x: number}} View height of the frame on the screen in CSS pixels, and the point
 *   of the frame, as shares of its height and width, that is in the middle of the pane
 * @typedef {{kind: "field" | "projective", y: number, x: number, unit: [number, number] | null}} Target
 * @typedef {{source: string, image: number, layer: string, channel: string, definition: string, subset: string,
 *   input: number,
 *   at: Target | null, view: View | null}} PaneState source is n0, n1, … for networks and f0, f1, … for files; image
 *   is -1 for the mean of a file; a view of null fits the frame into the pane
 * @typedef {{preset: string, center: number, width: number, inverted: boolean}} WindowState
 * @typedef {{shown: boolean, opacity: number, colors: string, scale: string, contours: boolean, theory: boolean,
 *   curves: string}} OverlayState
 * @typedef {{panes: PaneState[], active: number, linked: boolean, window: WindowState, overlay: OverlayState}} State
 */
export {};
