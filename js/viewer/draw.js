// @ts-check
import { isSeen, computeOpacity, computePlace, computeProgress, smooth } from "./places.js"

/**
 * An inset is a layer drawn into the one before it. This is the width of its soft edges when it first
 * appears, as a share of its side. coz/render/zoom_video.py has the same value.
 */
export const FEATHER_SHARE = 0.15

/** Smallest width of a soft edge that is in view, as a share of the inset's side. */
const MIN_FEATHER_SHARE = 0.02

/** Number of straight pieces that approximate the curve of a soft edge. */
const GRADIENT_STOPS = 12

/** Pixels drawn beyond the visible part, because interpolation at its edges uses them. */
const MARGIN_PX = 2

const BACKGROUND = "#0d0f12"

/** Yield the visible layers, the deepest first, and how to draw each on a screen of that size. */
function* listInsets(layers, view, size) {
  for (let layer = layers.length - 1; layer >= 0; layer--) {
    const alpha = computeOpacity(layers, layer, view, size)
    const place = computePlace(layers[layer], view, size)
    if (!alpha || !isSeen(place, size)) continue
    const soft = layer
      ? computeSoftEdges(place, size, FEATHER_SHARE * (1 - computeProgress(layers, layer, view, size)))
      : { left: 0, top: 0, right: 0, bottom: 0 }
    yield { layer, place, alpha, soft, fillsView: alpha === 1 && isCovering(place, soft, size) }
  }
}

/** Return the layers that a view is drawn from. */
export function listVisibleLayers(layers, view, size) {
  const seen = []
  for (const { layer, fillsView } of listInsets(layers, view, size)) {
    seen.push(layer)
    if (fillsView) break
  }
  return seen
}

/**
 * Draw a view: each layer set into the one before it with soft edges.
 *
 * @param {CanvasRenderingContext2D} context
 * @param {OffscreenCanvasRenderingContext2D} scratch  A canvas of the same size. On it an inset gets
 *   its soft edges.
 * @param {(layer: number, scale: number) => ImageBitmap | null} getBitmap
 */
export function drawView(context, scratch, layers, view, getBitmap) {
  const size = context.canvas
  context.globalAlpha = 1
  context.fillStyle = BACKGROUND
  context.fillRect(0, 0, size.width, size.height)
  const insets = []
  for (const inset of listInsets(layers, view, size)) {
    const picture = getBitmap(inset.layer, Math.max(inset.place.sx, inset.place.sy))
    if (!picture) continue // a coarser layer shows until this one is loaded
    insets.unshift({ ...inset, picture })
    if (inset.fillsView) break
  }
  for (const inset of insets) drawInset(context, scratch, inset)
}

function isCovering({ left, top, right, bottom }, soft, { width, height }) {
  return (
    left + soft.left <= 0 &&
    top + soft.top <= 0 &&
    right - soft.right >= width &&
    bottom - soft.bottom >= height
  )
}

/** Return the widths of the four soft edges in pixels. */
function computeSoftEdges({ left, top, right, bottom }, { width, height }, feather) {
  const computeWidth = (length, inside) => {
    const wide = Math.max(feather * length, Math.min(MIN_FEATHER_SHARE * length, inside))
    return wide < 0.5 ? 0 : wide
  }
  return {
    left: computeWidth(right - left, left),
    top: computeWidth(bottom - top, top),
    right: computeWidth(right - left, width - right),
    bottom: computeWidth(bottom - top, height - bottom),
  }
}

function drawInset(context, scratch, { picture, place, alpha, soft }) {
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
  scratch.globalCompositeOperation = "source-over"
  scratch.clearRect(x, y, w, h)
  drawPicture(scratch, picture, place)
  scratch.globalCompositeOperation = "destination-out"
  fadeOut(scratch, place.left, 0, soft.left, 0, [place.left, y, soft.left, h])
  fadeOut(scratch, place.right, 0, -soft.right, 0, [place.right - soft.right, y, soft.right, h])
  fadeOut(scratch, 0, place.top, 0, soft.top, [x, place.top, w, soft.top])
  fadeOut(scratch, 0, place.bottom, 0, -soft.bottom, [x, place.bottom - soft.bottom, w, soft.bottom])
  context.globalAlpha = alpha
  context.drawImage(scratch.canvas, x, y, w, h, x, y, w, h)
}

/** Fade a strip out towards (x, y), where nothing of it is left. */
function fadeOut(scratch, x, y, dx, dy, [left, top, width, height]) {
  if (!dx && !dy) return
  const gradient = scratch.createLinearGradient(x, y, x + dx, y + dy)
  for (let i = 0; i <= GRADIENT_STOPS; i++)
    gradient.addColorStop(i / GRADIENT_STOPS, `rgb(0 0 0 / ${1 - smooth(i / GRADIENT_STOPS)})`)
  scratch.fillStyle = gradient
  scratch.fillRect(left, top, width, height)
}

/** Draw only the visible part of an image: coordinates far outside the screen are imprecise. */
function drawPicture(context, picture, { left, top, right, bottom }) {
  const sx = (right - left) / picture.width
  const sy = (bottom - top) / picture.height
  const [x0, x1] = findVisibleRange(left, sx, picture.width, context.canvas.width)
  const [y0, y1] = findVisibleRange(top, sy, picture.height, context.canvas.height)
  const [w, h] = [x1 - x0, y1 - y0]
  context.imageSmoothingQuality = "high"
  context.drawImage(picture, x0, y0, w, h, left + x0 * sx, top + y0 * sy, w * sx, h * sy)
}

/** Return the first and last pixel to draw along one axis. */
function findVisibleRange(start, scale, length, shown) {
  const first = Math.floor(-start / scale) - MARGIN_PX
  const last = Math.ceil((shown - start) / scale) + MARGIN_PX
  return [Math.max(first, 0), Math.min(last, length)]
}
