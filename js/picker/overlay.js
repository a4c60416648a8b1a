// @ts-check
// Draws windows and target over an image, in light lines with a dark edge that show on any image.

/** @typedef {import("./geometry.js").Window} Window */

const SVG = "http://www.w3.org/2000/svg"
/** Smaller windows are not drawn: the crosshair shows where they are. */
const MIN_WINDOW_SIDE_PX = 5
const LETTER_WIDTH_PX = 6.5
const LINE_HEIGHT_PX = 13
const CROSSHAIR_PX = { gap: 3, length: 7 }
export const COLORS = { window: "white", target: "#ffc53d", edge: "rgba(0, 0, 0, 0.65)" }

/** Return the data of an SVG path. @param {Window} window */
export const makeRectanglePath = ({ x, y, width, height }) => `M${x} ${y}h${width}v${height}h${-width}z`

/** Return the data of an SVG path. @param {number} x @param {number} y */
export function makeCrosshairPath(x, y) {
  const { gap, length } = CROSSHAIR_PX
  const arms = [-1, 1].map(
    (side) => `M${x + side * gap} ${y}h${side * length}M${x} ${y + side * gap}v${side * length}`,
  )
  return arms.join("")
}

/**
 * @param {string} name
 * @param {Record<string, string | number>} attributes
 */
function createShape(name, attributes) {
  const element = document.createElementNS(SVG, name)
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, String(value))
  return element
}

/** @param {string} d @param {string} color */
function createOutlinedPath(d, color) {
  return [
    createShape("path", { d, fill: "none", stroke: COLORS.edge, "stroke-width": 3 }),
    createShape("path", { d, fill: "none", stroke: color, "stroke-width": 1 }),
  ]
}

/** @param {Window} a @param {Window} b */
const doOverlap = (a, b) =>
  a.x < b.x + b.width && b.x < a.x + a.width && a.y < b.y + b.height && b.y < a.y + a.height

/** @param {Window} inner @param {Window} outer */
const isWithin = (inner, outer) =>
  inner.x >= outer.x &&
  inner.y >= outer.y &&
  inner.x + inner.width <= outer.x + outer.width &&
  inner.y + inner.height <= outer.y + outer.height

/**
 * Return a free place for a label at a window, outside it where possible, or null where there is none.
 *
 * @param {Window} window
 * @param {number} width of the label
 * @param {Window} imageBox rectangle of the image
 * @param {Window[]} taken rectangles that the label must not cover
 * @returns {Window | null}
 */
function placeLabel({ x, y, width: w, height: h }, width, imageBox, taken) {
  const places = [
    [x, y - LINE_HEIGHT_PX],
    [x, y + h],
    [x + w + 2, y],
    [x - width - 2, y],
    [x + w - width, y - LINE_HEIGHT_PX],
    [x + w - width, y + h],
    [x + w + 2, y - LINE_HEIGHT_PX],
    [x - width - 2, y - LINE_HEIGHT_PX],
    [x + w + 2, y + h],
    [x + 3, y + 1],
    [x + 3, y + h - LINE_HEIGHT_PX - 1],
  ]
  for (const [left, top] of places) {
    const place = { x: left, y: top, width, height: LINE_HEIGHT_PX }
    if (isWithin(place, imageBox) && !taken.some((other) => doOverlap(place, other))) return place
  }
  return null
}

/**
 * @param {SVGSVGElement} svg
 * @param {Window} imageBox rectangle of the image in the svg
 * @param {{region: Window, label: string}[]} windows from the largest to the smallest; regions and
 *   target are fractions of the image
 * @param {{x: number, y: number} | null} target
 */
export function drawOverlay(svg, imageBox, windows, target) {
  const parts = []
  const drawn = []
  for (const { region, label } of windows) {
    const left = Math.round(imageBox.x + region.x * imageBox.width) + 0.5
    const top = Math.round(imageBox.y + region.y * imageBox.height) + 0.5
    const width = Math.round(region.width * imageBox.width) - 1
    const height = Math.round(region.height * imageBox.height) - 1
    if (!(Math.min(width, height) >= MIN_WINDOW_SIDE_PX)) continue
    const box = { x: left, y: top, width, height }
    drawn.push({ label, box })
    parts.push(...createOutlinedPath(makeRectanglePath(box), COLORS.window))
  }
  const taken = []
  if (target) {
    const x = Math.round(imageBox.x + target.x * imageBox.width - 0.5) + 0.5
    const y = Math.round(imageBox.y + target.y * imageBox.height - 0.5) + 0.5
    parts.push(...createOutlinedPath(makeCrosshairPath(x, y), COLORS.target))
    const reach = CROSSHAIR_PX.gap + CROSSHAIR_PX.length
    taken.push({ x: x - reach, y: y - 1, width: 2 * reach, height: 2 })
    taken.push({ x: x - 1, y: y - reach, width: 2, height: 2 * reach })
  }
  drawn.forEach(({ label, box }, i) => {
    const smaller = drawn.slice(i + 1).map((other) => other.box)
    const place = placeLabel(box, label.length * LETTER_WIDTH_PX + 2, imageBox, [...taken, ...smaller])
    if (!place) return
    taken.push(place)
    const text = createShape("text", {
      x: place.x + 1,
      y: place.y + LINE_HEIGHT_PX - 3,
      fill: "white",
      stroke: "rgba(0, 0, 0, 0.8)",
      "stroke-width": 3,
      "stroke-linejoin": "round",
      "paint-order": "stroke",
      "font-size": 11,
      "font-family": "sans-serif",
    })
    text.textContent = label
    parts.push(text)
  })
  svg.replaceChildren(...parts)
}
