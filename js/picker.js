// @ts-check
// The target picker: it shows the connected image on the node and the windows that the steps will crop.
import { forwardToGraph, redraw, forwardFiles } from "./host/canvas.js"
import { findLinkedNode, setTarget, findTargetInput, findWidget } from "./host/graph.js"
import { callAfter } from "./host/hook.js"
import { hideLoupe, showLoupe } from "./picker/loupe.js"
import { drawOverlay } from "./picker/overlay.js"
import { checkFiles, getNodeImage, markGone } from "./picker/picture.js"
import { translate } from "./picker/texts.js"
import { callOnGraphChanges, stopCalling } from "./picker/watch.js"
import { WINDOW_WIDGETS, planNodeWindows } from "./picker/windows.js"
import { showOnNode } from "./host/widget.js"

/** @typedef {import("./picker/geometry.js").Target} Target */

const WIDGET_NAME = "target"
const MARGIN_PX = 10
const LAYER_STYLE = "position: absolute; z-index: -1; width: 100%; height: 100%"
/** Minimum heights: of an image to pick on, of an image that is only shown, and of a text alone. */
const HEIGHT_PX = { pick: 400, look: 160, text: 28 }
const ARROW_DIRECTIONS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }

/** @param {number} x @param {number} y @returns {Target} */
const clampTarget = (x, y) => ({ x: Math.min(Math.max(x, 0), 1), y: Math.min(Math.max(y, 0), 1) })

/** @param {any} node */
export function attachPicker(node) {
  const type = /** @type {keyof WINDOW_WIDGETS} */ (node.constructor.comfyClass)
  if (!(type in WINDOW_WIDGETS)) return

  const root = document.createElement("div")
  root.className = "coz-picker"
  root.tabIndex = 0
  root.role = "application" // it handles the arrow keys itself
  root.style.cssText =
    "position: relative; isolation: isolate; overflow: hidden; outline-offset: -2px; touch-action: none; user-select: none"
  const image = document.createElement("img")
  image.alt = ""
  image.draggable = false
  image.style.cssText = `${LAYER_STYLE}; object-fit: contain`
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg")
  svg.style.cssText = LAYER_STYLE
  const note = document.createElement("div")
  note.style.cssText =
    "position: absolute; bottom: 0; width: 100%; text-align: center; font-size: 12px; line-height: 20px"
  root.append(image, svg, note)

  /**
   * Size of the source image in pixels; null while no image is shown.
   *
   * @type {{width: number, height: number} | null}
   */
  let size = null
  /** @type {import("./picker/picture.js").Picture | null} */
  let picture = null
  /**
   * Why no image is shown; null where none is connected.
   *
   * @type {import("./picker/picture.js").Problem | null}
   */
  let problem = null
  /** Key of the image that the element shows or loads. */
  let shownKey = ""
  /**
   * The target while a pointer or key is down. It is set on release, so that one Ctrl+Z undoes it.
   *
   * @type {Target | null}
   */
  let heldTarget = null
  /** Whether the user has set the target with this picker. */
  let hasPicked = false
  let pointer = 0
  let drawnState = ""

  const findBlockingInput = () => findTargetInput(node)

  /** @param {number} width */
  function computeHeight(width) {
    if (!size) return HEIGHT_PX.text
    const fit = (width * size.height) / size.width
    return Math.max(Math.min(fit, findBlockingInput() ? HEIGHT_PX.look : HEIGHT_PX.pick), HEIGHT_PX.text)
  }

  /** The rectangle of the image in the widget, in the widget's own pixels. */
  function computeImageBox() {
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
  function getTarget() {
    if (heldTarget) return heldTarget
    const [x, y] = ["center_x", "center_y"].map((name) => findWidget(node, name))
    if (!findBlockingInput()) return { x: x.value, y: y.value }
    const last = picture?.target
    return last ? { x: last[0], y: last[1] } : null
  }

  /** Whether the user has chosen a target: it differs from that of a new node. */
  function isTargetChosen() {
    const at = getTarget()
    return hasPicked || heldTarget !== null || at?.x !== 0.5 || at.y !== 0.5
  }

  /** @param {Target} at */
  function holdTarget(at) {
    heldTarget = at
    refresh()
    magnify(at)
  }

  /** The rectangle of the image on the screen. */
  function computeScreenBox() {
    const { left, top, width } = root.getBoundingClientRect()
    const zoom = width / root.clientWidth
    const box = computeImageBox()
    return {
      x: left + box.x * zoom,
      y: top + box.y * zoom,
      width: box.width * zoom,
      height: box.height * zoom,
    }
  }

  /** @param {Target} at */
  function magnify(at) {
    if (!size || findBlockingInput()) return
    const regions = planNodeWindows(node, size, at).map(({ region }) => region)
    showLoupe(image, size.width, computeScreenBox(), at, regions)
  }

  function releaseTarget() {
    const target = heldTarget
    heldTarget = null
    if (target && !findBlockingInput()) {
      setTarget(node, target)
      hasPicked = true
    }
    refresh()
  }

  function updateHeight() {
    const height = `${computeHeight(root.clientWidth)}px`
    if (root.style.minHeight === height) return
    root.style.minHeight = height
    redraw()
  }

  function refresh() {
    if (!node.graph || !root.isConnected) return
    const found = getNodeImage(node)
    if (found && typeof found === "object") {
      picture = found
      problem = null
      if (shownKey !== picture.key) image.src = picture.url
      shownKey = picture.key
    } else {
      picture = size = null
      problem = found
      shownKey = ""
      image.removeAttribute("src")
    }
    const blocked = findBlockingInput()
    const state = JSON.stringify([
      shownKey,
      problem,
      size,
      blocked,
      hasPicked,
      getTarget(),
      WINDOW_WIDGETS[type].map((name) => findWidget(node, name)?.value),
      [root.clientWidth, root.clientHeight],
    ])
    if (state === drawnState) return
    drawnState = state
    draw(blocked)
  }

  /** @param {string | undefined} blocked */
  function draw(blocked) {
    updateHeight()
    image.hidden = !size
    root.style.cursor = size && !blocked ? "crosshair" : "default"
    root.title = size && !blocked ? translate("help") : ""
    root.ariaLabel = root.title
    const hint = blocked ?? (isTargetChosen() ? undefined : "pick")
    const key = size ? hint : picture ? undefined : (problem ?? "connect")
    note.textContent = key ? translate(/** @type {Parameters<typeof translate>[0]} */ (key)) : ""
    note.style.background = size ? "rgba(0, 0, 0, 0.6)" : "none"
    note.style.color = size ? "white" : "inherit"
    note.style.opacity = size ? "1" : "0.7"
    const point = size && getTarget()
    const windows = size && point && blocked !== "chain" ? planNodeWindows(node, size, point) : []
    drawOverlay(svg, computeImageBox(), windows, point)
  }

  image.addEventListener("load", () => {
    if (picture) size = { width: picture.width, height: picture.height }
    refresh()
  })
  image.addEventListener("error", () => {
    if (picture?.saved) markGone(picture)
    refresh()
  })

  /** @param {PointerEvent} event */
  function getTargetAt({ clientX, clientY }) {
    const { x, y, width, height } = computeScreenBox()
    return clampTarget((clientX - x) / width, (clientY - y) / height)
  }
  forwardToGraph(root)
  forwardFiles(root, () => findLinkedNode(node, "image")) // the node that loads the image takes the file
  root.addEventListener("pointerenter", checkFiles)
  root.addEventListener("pointerdown", (event) => {
    if (!event.isPrimary && root.hasPointerCapture(pointer)) {
      heldTarget = null // a pinch zooms the graph
      root.releasePointerCapture(pointer)
    }
    if (!event.isPrimary || event.button !== 0 || !size || findBlockingInput()) return
    event.stopPropagation()
    root.focus({ preventScroll: true })
    pointer = event.pointerId
    root.setPointerCapture(pointer)
    holdTarget(getTargetAt(event))
  })
  root.addEventListener("pointermove", (event) => {
    if (root.hasPointerCapture(event.pointerId)) holdTarget(getTargetAt(event))
    else if (!event.buttons) magnify(getTargetAt(event))
  })
  root.addEventListener("pointerleave", hideLoupe)
  root.addEventListener("lostpointercapture", releaseTarget)
  root.addEventListener("keydown", (event) => {
    const direction = ARROW_DIRECTIONS[/** @type {keyof ARROW_DIRECTIONS} */ (event.key)]
    if (!direction) releaseTarget() // the key may run the workflow, which needs the target
    const at = getTarget()
    if (!direction || !size || !at || findBlockingInput()) return
    if (event.ctrlKey || event.metaKey || event.altKey) return
    event.preventDefault()
    event.stopPropagation()
    const pixels = event.shiftKey ? 10 : 1
    const [dx, dy] = direction
    holdTarget(clampTarget(at.x + (dx * pixels) / size.width, at.y + (dy * pixels) / size.height))
  })
  root.addEventListener("blur", hideLoupe)
  for (const end of ["keyup", "blur"]) root.addEventListener(end, releaseTarget)

  const widget = showOnNode(node, WIDGET_NAME, "COZ_TARGET", root, {
    hideOnZoom: false,
    margin: MARGIN_PX,
    getMinHeight: () => computeHeight(node.size[0] - 2 * MARGIN_PX) + 2 * MARGIN_PX,
  })
  // Let the classic renderer draw this widget first. In node.widgets it stays the last, because values are
  // saved in that order. Nodes 2.0 also draw the widgets in that order.
  const { getLayoutWidgets } = node
  node.getLayoutWidgets = function () {
    const widgets = getLayoutWidgets.call(this)
    return [...widgets].sort((one, other) => Number(other === widget) - Number(one === widget))
  }

  const sizeObserver = new ResizeObserver(() => {
    updateHeight()
    refresh()
  })
  const visibilityObserver = new IntersectionObserver((entries) => {
    if (entries.at(-1)?.isIntersecting) callOnGraphChanges(refresh)
    else stopCalling(refresh)
  })
  function observe() {
    sizeObserver.observe(root)
    visibilityObserver.observe(root)
  }
  function disconnect() {
    sizeObserver.disconnect()
    visibilityObserver.disconnect()
    stopCalling(refresh)
    hideLoupe()
  }
  callAfter(node, "onAdded", observe)
  callAfter(node, "onRemoved", disconnect)
  if (node.graph) observe()
}
