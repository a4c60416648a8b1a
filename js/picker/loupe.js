// @ts-check
// The loupe: the place under the pointer, magnified beside it, where one pixel of the screen covers
// many of the picture and a spot could not be hit otherwise.

import { COLORS, crosshairPath, rectanglePath } from "./overlay.js"

/** @typedef {import("./geometry.js").Window} Window */
/** @typedef {import("./geometry.js").Target} Target */

/** Pixels of the picture in a pixel of the screen from which on the loupe shows. */
const MIN_DENSITY = 8
/** Pixels of the loupe's sides, and from it to the place that it shows. */
const SIDE = 180
const GAP = 24
/** How far it magnifies what the screen shows: more or less where the window in it asks for that. */
const POWER = { least: 2, usual: 4, most: 8 }
/** Share of its side that the window in it takes, and takes at most. */
const WINDOW = 0.5
const MAX_WINDOW = 0.75

const canvas = document.createElement("canvas")
canvas.className = "coz-loupe"
canvas.ariaHidden = "true"
canvas.hidden = true
canvas.style.cssText = `position: fixed; z-index: 9999; width: ${SIDE}px; height: ${SIDE}px; border-radius: 8px;
  background: black; box-shadow: 0 0 0 1px rgba(255, 255, 255, 0.7), 0 2px 12px rgba(0, 0, 0, 0.6); pointer-events: none`

export function hideLoupe() {
  canvas.hidden = true
}

// Whatever happens next may move what it shows; the picker then shows it again.
for (const type of ["pointermove", "pointerdown", "wheel", "keydown"])
  addEventListener(type, hideLoupe, { capture: true, passive: true })

/**
 * Shows a place of a picture, if the picture is shown so small that this helps.
 *
 * @param {HTMLImageElement} image
 * @param {number} pixels of the picture's own width
 * @param {Window} box where the picture lies on the screen
 * @param {Target} at
 * @param {Window[]} regions from the largest to the smallest, as fractions of the picture: the first
 *   that fits is outlined
 */
export function showLoupe(image, pixels, box, at, regions) {
  canvas.hidden = pixels / box.width < MIN_DENSITY
  if (canvas.hidden) return
  if (!canvas.isConnected) document.body.append(canvas)

  const sideOf = (/** @type {Window} */ { width, height }) =>
    Math.max(width * box.width, height * box.height)
  const region = regions.find((each) => sideOf(each) * POWER.least <= SIDE * MAX_WINDOW)
  const wanted = region ? (SIDE * WINDOW) / sideOf(region) : POWER.usual
  const power = Math.min(Math.max(wanted, POWER.least), POWER.most)
  const [width, height] = [box.width * power, box.height * power]

  canvas.width = canvas.height = Math.round(SIDE * devicePixelRatio) // which clears it, too
  const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"))
  context.scale(canvas.width / SIDE, canvas.width / SIDE)
  context.translate(SIDE / 2, SIDE / 2)
  context.imageSmoothingQuality = "high"
  context.drawImage(image, -at.x * width, -at.y * height, width, height)
  if (region) {
    const window = {
      x: (region.x - at.x) * width,
      y: (region.y - at.y) * height,
      width: region.width * width,
      height: region.height * height,
    }
    stroke(context, rectanglePath(window), COLORS.window)
  }
  stroke(context, crosshairPath(0, 0), COLORS.target)

  const x = box.x + at.x * box.width
  const y = box.y + at.y * box.height
  const above = y - GAP - SIDE
  canvas.style.left = `${Math.min(Math.max(x - SIDE / 2, 0), innerWidth - SIDE)}px`
  canvas.style.top = `${above < 0 ? y + GAP : above}px`
}

/** @param {CanvasRenderingContext2D} context @param {string} path @param {string} color */
function stroke(context, path, color) {
  for (const [width, style] of /** @type {[number, string][]} */ ([[3, COLORS.edge], [1, color]])) {
    context.lineWidth = width
    context.strokeStyle = style
    context.stroke(new Path2D(path))
  }
}
