// @ts-check
import { isSeen, opacity, placeOf, progress, smooth } from "./places.js"

/** Width of an inset's soft edge, of its side, when it first appears: coz/render/zoom_video.py. */
export const FEATHER = 0.15

/** The same where an edge stays in view while the layer itself is the current one. */
const SEAM = 0.02

/** Straight pieces that the curve of a soft edge is made of. */
const STOPS = 12

/** Pixels around the visible part that weigh in at its edges. */
const MARGIN = 2

export const BACKGROUND = "#0d0f12"

/** What of each layer is on a screen of that size, the deepest first. */
function* insetsOf(layers, view, size) {
  for (let layer = layers.length - 1; layer >= 0; layer--) {
    const alpha = opacity(layers, layer, view, size)
    const place = placeOf(layers[layer], view, size)
    if (!alpha || !isSeen(place, size)) continue
    const soft = layer
      ? softEdges(place, size, FEATHER * (1 - progress(layers, layer, view, size)))
      : { left: 0, top: 0, right: 0, bottom: 0 }
    yield { layer, place, alpha, soft, isAll: alpha === 1 && covers(place, soft, size) }
  }
}

/** The layers that a view is made of. */
export function layersIn(layers, view, size) {
  const seen = []
  for (const { layer, isAll } of insetsOf(layers, view, size)) {
    seen.push(layer)
    if (isAll) break
  }
  return seen
}

/**
 * Draws a view: each layer set into the one before it with soft edges.
 *
 * @param {CanvasRenderingContext2D} context
 * @param {OffscreenCanvasRenderingContext2D} sheet  For what is not yet blended; of the same size.
 * @param {(layer: number, scale: number) => ImageBitmap | null} pictureOf
 */
export function drawView(context, sheet, layers, view, pictureOf) {
  const size = context.canvas
  context.globalAlpha = 1
  context.fillStyle = BACKGROUND
  context.fillRect(0, 0, size.width, size.height)
  const insets = []
  for (const inset of insetsOf(layers, view, size)) {
    const picture = pictureOf(inset.layer, Math.max(inset.place.sx, inset.place.sy))
    if (!picture) continue // until it is there, a coarser one shows
    insets.unshift({ ...inset, picture })
    if (inset.isAll) break
  }
  for (const inset of insets) drawInset(context, sheet, inset)
}

function covers({ left, top, right, bottom }, soft, { width, height }) {
  return (
    left + soft.left <= 0 &&
    top + soft.top <= 0 &&
    right - soft.right >= width &&
    bottom - soft.bottom >= height
  )
}

/** Widths of the four soft edges in pixels. */
function softEdges({ left, top, right, bottom }, { width, height }, feather) {
  const edge = (length, inside) => {
    const wide = Math.max(feather * length, Math.min(SEAM * length, inside))
    return wide < 0.5 ? 0 : wide
  }
  return {
    left: edge(right - left, left),
    top: edge(bottom - top, top),
    right: edge(right - left, width - right),
    bottom: edge(bottom - top, height - bottom),
  }
}

function drawInset(context, sheet, { picture, place, alpha, soft }) {
  const isSoft = soft.left || soft.top || soft.right || soft.bottom
  if (!isSoft) {
    context.globalAlpha = alpha
    drawPicture(context, picture, place)
    return
  }
  const { width, height } = context.canvas
  const x = Math.max(Math.floor(place.left), 0)
  const y = Math.max(Math.floor(place.top), 0)
  const w = Math.min(Math.ceil(place.right), width) - x
  const h = Math.min(Math.ceil(place.bottom), height) - y
  sheet.globalCompositeOperation = "source-over"
  sheet.clearRect(x, y, w, h)
  drawPicture(sheet, picture, place)
  sheet.globalCompositeOperation = "destination-out"
  fadeOut(sheet, place.left, 0, soft.left, 0, [place.left, y, soft.left, h])
  fadeOut(sheet, place.right, 0, -soft.right, 0, [place.right - soft.right, y, soft.right, h])
  fadeOut(sheet, 0, place.top, 0, soft.top, [x, place.top, w, soft.top])
  fadeOut(sheet, 0, place.bottom, 0, -soft.bottom, [x, place.bottom - soft.bottom, w, soft.bottom])
  context.globalAlpha = alpha
  context.drawImage(sheet.canvas, x, y, w, h, x, y, w, h)
}

/** Takes away what lies in a strip: all of it at (x, y), nothing at the strip's other side. */
function fadeOut(sheet, x, y, dx, dy, [left, top, width, height]) {
  if (!dx && !dy) return
  const gradient = sheet.createLinearGradient(x, y, x + dx, y + dy)
  for (let i = 0; i <= STOPS; i++)
    gradient.addColorStop(i / STOPS, `rgb(0 0 0 / ${1 - smooth(i / STOPS)})`)
  sheet.fillStyle = gradient
  sheet.fillRect(left, top, width, height)
}

/** Draws the visible part only: far outside the screen its coordinates would lose precision. */
function drawPicture(context, picture, { left, top, right, bottom }) {
  const sx = (right - left) / picture.width
  const sy = (bottom - top) / picture.height
  const [x0, x1] = visible(left, sx, picture.width, context.canvas.width)
  const [y0, y1] = visible(top, sy, picture.height, context.canvas.height)
  const [w, h] = [x1 - x0, y1 - y0]
  context.imageSmoothingQuality = "high"
  context.drawImage(picture, x0, y0, w, h, left + x0 * sx, top + y0 * sy, w * sx, h * sy)
}

function visible(start, scale, length, shown) {
  const first = Math.floor(-start / scale) - MARGIN
  const last = Math.ceil((shown - start) / scale) + MARGIN
  return [Math.max(first, 0), Math.min(last, length)]
}
