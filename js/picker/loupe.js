// @ts-check
// The loupe magnifies the place under the pointer. It appears only where one pixel of the screen covers so
// many pixels of the image that nobody could point at one of them.

import { COLORS, makeCrosshairPath, makeRectanglePath } from "./overlay.js"

/** @typedef {import("./geometry.js").Window} Window */
/** @typedef {import("./geometry.js").Target} Target */

/** The loupe appears if a pixel of the screen covers at least this many image pixels along a side. */
const MIN_IMAGE_PIXELS_PER_SCREEN_PIXEL = 8
/** Side of the loupe. */
const SIDE_PX = 180
/** Distance between the loupe and the place that it shows. */
const GAP_PX = 24
/** Factors between the screen and the loupe; `withoutWindow` is used if no window is outlined. */
const MAGNIFICATION = { min: 2, withoutWindow: 4, max: 8 }
/** Share of the loupe's side that the outlined window fills, unless MAGNIFICATION limits the factor. */
const WINDOW_SHARE = 0.5
/** Largest share of the loupe's side that a window may take. */
const MAX_WINDOW_SHARE = 0.75

const canvas = document.createElement("canvas")
canvas.className = "coz-loupe"
canvas.ariaHidden = "true"
canvas.hidden = true
canvas.style.cssText = `position: fixed; z-index: 9999; width: ${SIDE_PX}px; height: ${SIDE_PX}px; border-radius: 8px;
  background: black; box-shadow: 0 0 0 1px rgba(255, 255, 255, 0.7), 0 2px 12px rgba(0, 0, 0, 0.6); pointer-events: none`

export function hideLoupe() {
  canvas.hidden = true
}

// Any of these may move the image. The picker then shows the loupe again.
for (const type of ["pointermove", "pointerdown", "wheel", "keydown"])
  addEventListener(type, hideLoupe, { capture: true, passive: true })

/**
 * Show a place of an image in the loupe, if the image is displayed small enough.
 *
 * @param {HTMLImageElement} image
 * @param {number} sourceWidth in pixels
 * @param {Window} box rectangle of the image on the screen
 * @param {Target} at
 * @param {Window[]} regions from the largest to the smallest, as fractions of the image; the first one
 *   that fits into the loupe is outlined
 */
export function showLoupe(image, sourceWidth, box, at, regions) {
  canvas.hidden = sourceWidth / box.width < MIN_IMAGE_PIXELS_PER_SCREEN_PIXEL
  if (canvas.hidden) return
  if (!canvas.isConnected) document.body.append(canvas)

  const computeSide = (/** @type {Window} */ { width, height }) =>
    Math.max(width * box.width, height * box.height)
  const maxSide = (SIDE_PX * MAX_WINDOW_SHARE) / MAGNIFICATION.min
  const region = regions.find((each) => computeSide(each) <= maxSide)
  const wanted = region ? (SIDE_PX * WINDOW_SHARE) / computeSide(region) : MAGNIFICATION.withoutWindow
  const power = Math.min(Math.max(wanted, MAGNIFICATION.min), MAGNIFICATION.max)
  const [width, height] = [box.width * power, box.height * power]

  canvas.width = canvas.height = Math.round(SIDE_PX * devicePixelRatio) // this also clears it
  const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"))
  context.scale(canvas.width / SIDE_PX, canvas.width / SIDE_PX)
  context.translate(SIDE_PX / 2, SIDE_PX / 2)
  context.imageSmoothingQuality = "high"
  context.drawImage(image, -at.x * width, -at.y * height, width, height)
  if (region) {
    const window = {
      x: (region.x - at.x) * width,
      y: (region.y - at.y) * height,
      width: region.width * width,
      height: region.height * height,
    }
    stroke(context, makeRectanglePath(window), COLORS.window)
  }
  stroke(context, makeCrosshairPath(0, 0), COLORS.target)

  const x = box.x + at.x * box.width
  const y = box.y + at.y * box.height
  const above = y - GAP_PX - SIDE_PX
  canvas.style.left = `${Math.min(Math.max(x - SIDE_PX / 2, 0), innerWidth - SIDE_PX)}px`
  canvas.style.top = `${above < 0 ? y + GAP_PX : above}px`
}

/** @param {CanvasRenderingContext2D} context @param {string} path @param {string} color */
function stroke(context, path, color) {
  for (const [width, style] of /** @type {[number, string][]} */ ([[3, COLORS.edge], [1, color]])) {
    context.lineWidth = width
    context.strokeStyle = style
    context.stroke(new Path2D(path))
  }
}
