// @ts-check
// The target picker: the connected picture on the node, with the windows that will be cut from it.
import { leaveToGraph, redraw, takeFiles } from "./host/canvas.js"
import { feederOf, setTarget, targetInput, widgetOf } from "./host/graph.js"
import { after } from "./host/hook.js"
import { hideLoupe, showLoupe } from "./picker/loupe.js"
import { drawOverlay } from "./picker/overlay.js"
import { checkFiles, forget, pictureOf } from "./picker/picture.js"
import { text } from "./picker/texts.js"
import { unwatch, watch } from "./picker/watch.js"
import { WIDGETS, windowsOf } from "./picker/windows.js"
import { showOnNode } from "./host/widget.js"

/** @typedef {import("./picker/geometry.js").Target} Target */

const NAME = "target"
const MARGIN = 10
const LAYER = "position: absolute; z-index: -1; width: 100%; height: 100%"
/** Pixels that the picture asks for; with more room it grows. Less where nothing can be picked. */
const HEIGHT = { pick: 400, look: 160, text: 28 }
const KEYS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }

/** @param {number} x @param {number} y @returns {Target} */
const within = (x, y) => ({ x: Math.min(Math.max(x, 0), 1), y: Math.min(Math.max(y, 0), 1) })

/** @param {any} node */
export function attachPicker(node) {
  const type = /** @type {keyof WIDGETS} */ (node.constructor.comfyClass)
  if (!(type in WIDGETS)) return

  const root = document.createElement("div")
  root.className = "coz-picker"
  root.tabIndex = 0
  root.role = "application" // the arrow keys are its own
  root.style.cssText =
    "position: relative; isolation: isolate; overflow: hidden; outline-offset: -2px; touch-action: none; user-select: none"
  const image = document.createElement("img")
  image.alt = ""
  image.draggable = false
  image.style.cssText = `${LAYER}; object-fit: contain`
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg")
  svg.style.cssText = LAYER
  const note = document.createElement("div")
  note.style.cssText =
    "position: absolute; bottom: 0; width: 100%; text-align: center; font-size: 12px; line-height: 20px"
  root.append(image, svg, note)

  /**
   * The picture's true size in pixels; null while none is shown.
   *
   * @type {{width: number, height: number} | null}
   */
  let size = null
  /** @type {import("./picker/picture.js").Picture | null} */
  let picture = null
  /**
   * Why there is no picture; null where none is connected.
   *
   * @type {import("./picker/picture.js").Problem | null}
   */
  let problem = null
  /** Key of the picture that the element shows or loads. */
  let loading = ""
  /**
   * What the pointer or a key holds. Written when it is let go, so that one Ctrl+Z takes it back.
   *
   * @type {Target | null}
   */
  let held = null
  /** Whether this picker has set the target. */
  let picked = false
  let pointer = 0
  let drawn = ""

  const blocker = () => targetInput(node)

  /** @param {number} width */
  function heightAt(width) {
    if (!size) return HEIGHT.text
    const fit = (width * size.height) / size.width
    return Math.max(Math.min(fit, blocker() ? HEIGHT.look : HEIGHT.pick), HEIGHT.text)
  }

  /** Where the picture lies in the widget, in the widget's own pixels. */
  function pictureBox() {
    const { clientWidth, clientHeight } = root
    const { width, height } = size ?? { width: 1, height: 1 }
    const scale = Math.min(clientWidth / width, clientHeight / height)
    return {
      x: (clientWidth - width * scale) / 2,
      y: (clientHeight - height * scale) / 2,
      width: width * scale,
      height: height * scale,
    }
  }

  /** @returns {Target | null} */
  function target() {
    if (held) return held
    if (!blocker()) return { x: widgetOf(node, "center_x").value, y: widgetOf(node, "center_y").value }
    const last = picture?.target
    return last ? { x: last[0], y: last[1] } : null
  }

  /** Whether somebody has chosen the target: it is not where a new node has it. */
  function isPicked() {
    const at = target()
    return picked || held !== null || at?.x !== 0.5 || at.y !== 0.5
  }

  /** @param {Target} at */
  function hold(at) {
    held = at
    refresh()
    magnify(at)
  }

  /** Where the picture lies on the screen. */
  function boxOnScreen() {
    const { left, top, width } = root.getBoundingClientRect()
    const zoom = width / root.clientWidth
    const box = pictureBox()
    return {
      x: left + box.x * zoom,
      y: top + box.y * zoom,
      width: box.width * zoom,
      height: box.height * zoom,
    }
  }

  /** @param {Target} at */
  function magnify(at) {
    if (!size || blocker()) return
    const regions = windowsOf(node, size, at).map(({ region }) => region)
    showLoupe(image, size.width, boxOnScreen(), at, regions)
  }

  function letGo() {
    const target = held
    held = null
    if (target && !blocker()) {
      setTarget(node, target)
      picked = true
    }
    refresh()
  }

  function layout() {
    const height = `${heightAt(root.clientWidth)}px`
    if (root.style.minHeight === height) return
    root.style.minHeight = height
    redraw()
  }

  function refresh() {
    if (!node.graph || !root.isConnected) return
    const found = pictureOf(node)
    if (found && typeof found === "object") {
      picture = found
      problem = null
      if (loading !== picture.key) image.src = picture.url
      loading = picture.key
    } else {
      picture = size = null
      problem = found
      loading = ""
      image.removeAttribute("src")
    }
    const blocked = blocker()
    const state = JSON.stringify([
      loading,
      problem,
      size,
      blocked,
      picked,
      target(),
      WIDGETS[type].map((name) => widgetOf(node, name)?.value),
      [root.clientWidth, root.clientHeight],
    ])
    if (state === drawn) return
    drawn = state
    draw(blocked)
  }

  /** @param {string | undefined} blocked */
  function draw(blocked) {
    layout()
    image.hidden = !size
    root.style.cursor = size && !blocked ? "crosshair" : "default"
    root.title = size && !blocked ? text("help") : ""
    root.ariaLabel = root.title
    const hint = blocked ?? (isPicked() ? undefined : "pick")
    const key = size ? hint : picture ? undefined : (problem ?? "connect")
    note.textContent = key ? text(/** @type {Parameters<typeof text>[0]} */ (key)) : ""
    note.style.background = size ? "rgba(0, 0, 0, 0.6)" : "none"
    note.style.color = size ? "white" : "inherit"
    note.style.opacity = size ? "1" : "0.7"
    const point = size && target()
    const windows = size && point && blocked !== "chain" ? windowsOf(node, size, point) : []
    drawOverlay(svg, pictureBox(), windows, point)
  }

  image.addEventListener("load", () => {
    if (picture) size = { width: picture.width, height: picture.height }
    refresh()
  })
  image.addEventListener("error", () => {
    if (picture?.saved) forget(picture)
    refresh()
  })

  /** @param {PointerEvent} event */
  function placeOf({ clientX, clientY }) {
    const { x, y, width, height } = boxOnScreen()
    return within((clientX - x) / width, (clientY - y) / height)
  }
  leaveToGraph(root)
  takeFiles(root, () => feederOf(node, "image")) // a picture for the node that the picture is from
  root.addEventListener("pointerenter", checkFiles)
  root.addEventListener("pointerdown", (event) => {
    if (!event.isPrimary && root.hasPointerCapture(pointer)) {
      held = null // a pinch: the graph's
      root.releasePointerCapture(pointer)
    }
    if (!event.isPrimary || event.button !== 0 || !size || blocker()) return
    event.stopPropagation()
    root.focus({ preventScroll: true })
    pointer = event.pointerId
    root.setPointerCapture(pointer)
    hold(placeOf(event))
  })
  root.addEventListener("pointermove", (event) => {
    if (root.hasPointerCapture(event.pointerId)) hold(placeOf(event))
    else if (!event.buttons) magnify(placeOf(event))
  })
  root.addEventListener("pointerleave", hideLoupe)
  root.addEventListener("lostpointercapture", letGo)
  root.addEventListener("keydown", (event) => {
    const direction = KEYS[/** @type {keyof KEYS} */ (event.key)]
    if (!direction) letGo() // it may be the key that runs the workflow
    const at = target()
    if (!direction || !size || !at || blocker() || event.ctrlKey || event.metaKey || event.altKey) return
    event.preventDefault()
    event.stopPropagation()
    const pixels = event.shiftKey ? 10 : 1
    const [dx, dy] = direction
    hold(within(at.x + (dx * pixels) / size.width, at.y + (dy * pixels) / size.height))
  })
  root.addEventListener("blur", hideLoupe)
  for (const end of ["keyup", "blur"]) root.addEventListener(end, letGo)

  const widget = showOnNode(node, NAME, "COZ_TARGET", root, {
    hideOnZoom: false,
    margin: MARGIN,
    getMinHeight: () => heightAt(node.size[0] - 2 * MARGIN) + 2 * MARGIN,
  })
  // First on the node, in the classic renderer. Values are saved in the order of node.widgets,
  // where its place stays; Nodes 2.0 draw in that order too.
  const { getLayoutWidgets } = node
  node.getLayoutWidgets = function () {
    const widgets = getLayoutWidgets.call(this)
    return [...widgets].sort((one, other) => Number(other === widget) - Number(one === widget))
  }

  const resized = new ResizeObserver(() => {
    layout()
    refresh()
  })
  const seen = new IntersectionObserver((entries) => {
    if (entries.at(-1)?.isIntersecting) watch(refresh)
    else unwatch(refresh)
  })
  function observe() {
    resized.observe(root)
    seen.observe(root)
  }
  function disconnect() {
    resized.disconnect()
    seen.disconnect()
    unwatch(refresh)
    hideLoupe()
  }
  after(node, "onAdded", observe)
  after(node, "onRemoved", disconnect)
  if (node.graph) observe()
}
