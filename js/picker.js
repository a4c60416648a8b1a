// @ts-check
// The target picker: the connected picture on the node, with the windows that will be cut from it.
import { app } from "../../scripts/app.js"
import { leaveToGraph } from "./canvas.js"
import { feederOf, setTarget, targetInput, widgetOf } from "./graph.js"
import { after } from "./hook.js"
import { texts } from "./language.js"
import { factorLabel, firstFrame, inSource, planWindows, zoomWindow } from "./picker/geometry.js"
import { drawOverlay } from "./picker/overlay.js"
import { checkFiles, forget, pictureOf } from "./picker/picture.js"
import { unwatch, watch } from "./picker/watch.js"
import { showOnNode } from "./widget.js"

/** @typedef {import("./picker/geometry.js").Target} Target */
/** @typedef {import("./picker/geometry.js").Window} Window */

/** What the windows of a node depend on, besides the picture and the target. */
const WIDGETS = {
  CoZChainLoop: ["size", "frame", "scale", "steps"],
  CoZFitImage: ["size", "frame"],
  CoZCropCenterZoom: ["scale"],
}
const NAME = "target"
const MARGIN = 10
const LAYER = "position: absolute; z-index: -1; width: 100%; height: 100%"
/** Pixels that the picture asks for; with more room it grows. Less where nothing can be picked. */
const HEIGHT = { pick: 400, look: 160, text: 28 }
const KEYS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }

const text = texts(
  {
    connect: "connect an image to pick the target on it",
    run: "run once to see the picture",
    pick: "click where to zoom",
    loading: "loading the picture",
    gone: "the picture's file is gone: choose another",
    large: "too large to show before a run: run once to see it",
    unreadable: "cannot be shown before a run: run once to see it",
    center_x: "a link sets the target",
    center_y: "a link sets the target",
    mask: "the mask sets the target, unless it is empty",
    chain: "the chain sets the target",
    help: "Click or drag: set the target. Arrow keys: move it by one pixel of the picture, with Shift by ten.",
  },
  {
    connect: "连接图像后即可在其上选取目标",
    run: "运行一次后显示图片",
    pick: "点击要放大的位置",
    loading: "正在加载图片",
    gone: "图片文件已不存在：请另选一张",
    large: "图片过大，运行前无法显示：运行一次后显示",
    unreadable: "运行前无法显示此图片：运行一次后显示",
    center_x: "目标由连线决定",
    center_y: "目标由连线决定",
    mask: "目标由遮罩决定，空遮罩除外",
    chain: "目标由放大链决定",
    help: "单击或拖动：设置目标。方向键：移动一个原图像素；按住 Shift：移动十个。",
  },
)

/**
 * @param {any} node
 * @param {{width: number, height: number}} size of the picture
 * @param {Target} target
 */
function windowsOf(node, { width, height }, target) {
  const type = node.constructor.comfyClass
  const [size, frame, scale, steps] = WIDGETS.CoZChainLoop.map((name) => widgetOf(node, name)?.value)
  let regions, whole
  if (type === "CoZCropCenterZoom") {
    whole = { x: 0, y: 0, width, height }
    regions = [zoomWindow(height, width, scale, target)]
  } else {
    const first = firstFrame(height, width, size, frame, target)
    regions = inSource(first, planWindows(first, scale ?? 1, steps ?? 0))
    whole = regions[0]
  }
  return regions.map((region) => ({
    region: {
      x: region.x / width,
      y: region.y / height,
      width: region.width / width,
      height: region.height / height,
    },
    label: factorLabel(whole, region),
  }))
}

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

  /** @param {number} x @param {number} y */
  function hold(x, y) {
    held = { x: Math.min(Math.max(x, 0), 1), y: Math.min(Math.max(y, 0), 1) }
    refresh()
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
    app.canvas?.setDirty(true, true)
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
    const known = point && blocked !== "chain" && WIDGETS[type].every((name) => widgetOf(node, name))
    drawOverlay(svg, pictureBox(), size && known ? windowsOf(node, size, point) : [], point)
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
  function pick(event) {
    const rect = root.getBoundingClientRect()
    const box = pictureBox()
    const zoom = root.clientWidth / rect.width
    hold(
      ((event.clientX - rect.left) * zoom - box.x) / box.width,
      ((event.clientY - rect.top) * zoom - box.y) / box.height,
    )
  }
  leaveToGraph(root)
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
    pick(event)
  })
  root.addEventListener("pointermove", (event) => {
    if (root.hasPointerCapture(event.pointerId)) pick(event)
  })
  root.addEventListener("lostpointercapture", letGo)
  root.addEventListener("keydown", (event) => {
    const direction = KEYS[/** @type {keyof KEYS} */ (event.key)]
    if (!direction) letGo() // it may be the key that runs the workflow
    const at = target()
    if (!direction || !size || !at || blocker() || event.ctrlKey || event.metaKey || event.altKey) return
    event.preventDefault()
    event.stopPropagation()
    const pixels = event.shiftKey ? 10 : 1
    hold(at.x + (direction[0] * pixels) / size.width, at.y + (direction[1] * pixels) / size.height)
  })
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
  }
  after(node, "onAdded", observe)
  after(node, "onRemoved", disconnect)
  if (node.graph) observe()
}
