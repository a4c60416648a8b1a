// @ts-check
// Shows the closing text of a node, which stays on the node after a run. ComfyUI's own progress text
// disappears when the run ends, since frontend 1.58.
import { api } from "../../scripts/api.js"
import { forwardToGraph, redraw, canScroll } from "./host/canvas.js"
import { findNode } from "./host/graph.js"
import { receiveOutputs } from "./host/outputs.js"
import { removeWidget, showOnNode } from "./host/widget.js"

const TEXT_KEY = "coz_text"
/** Name of the widget of ComfyUI's own progress text. */
const PROGRESS_WIDGET = "$$node-text-preview"
/** Height above which the text scrolls. */
const MAX_HEIGHT_PX = 180
const MARGIN_PX = 10

const STYLE = `
  :host { overflow: auto; box-sizing: border-box; max-height: ${MAX_HEIGHT_PX}px; border-radius: 6px;
    background: var(--comfy-input-bg); color: var(--input-text); font: 12px/1.45 system-ui, sans-serif; }
  div { padding: 6px 10px; overflow-wrap: anywhere; user-select: text; cursor: text; }
  span { display: block; white-space: pre-wrap; }
  span + span { margin-top: 3px; }
  .dotted { padding-left: 15px; text-indent: -15px; }
  .dotted::before { content: ""; display: inline-block; width: 9px; height: 9px; margin-right: 6px;
    border-radius: 50%; background: var(--dot); }
  div + div { border-top: 1px solid var(--border-color); }`

/** @param {any} node */
export function attachClosingText(node) {
  if (!node.comfyClass?.startsWith("CoZ")) return
  receiveOutputs(node, TEXT_KEY, (output) => {
    if (!output) return // a cached run may have none
    drawText(node, output[TEXT_KEY] ?? [], new Map(output.coz_dots))
  })
}

/** Remove the text of an earlier run when a node sends progress text in a new one. */
export function removeTextOnProgress() {
  api.addEventListener("progress_text", ({ detail }) => {
    const node = findNode(String(detail.nodeId))
    if (node) removeWidget(node, TEXT_KEY)
  })
}

/**
 * @param {any} node
 * @param {string[]} texts one for each run of the node: a node runs once for each item of a list
 * @param {Map<string, string>} dots maps a line to the color of the dot before it
 */
function drawText(node, texts, dots) {
  removeWidget(node, TEXT_KEY)
  if (!texts.length) return
  removeWidget(node, PROGRESS_WIDGET)
  const root = document.createElement("div")
  const style = document.createElement("style")
  style.textContent = STYLE
  const parts = texts.map((text) => {
    const part = document.createElement("div")
    for (const line of text.split("\n")) {
      const shown = part.appendChild(document.createElement("span"))
      shown.textContent = line
      if (dots.has(line)) {
        shown.className = "dotted"
        shown.style.setProperty("--dot", dots.get(line) ?? "")
      }
    }
    return part
  })
  root.attachShadow({ mode: "open" }).append(style, ...parts)

  const computeHeight = () => {
    const needed = parts.reduce((sum, part) => sum + part.offsetHeight, 0)
    return Math.min(needed, MAX_HEIGHT_PX) + 2 * MARGIN_PX
  }
  showOnNode(node, TEXT_KEY, "COZ_TEXT", root, {
    hideOnZoom: false,
    margin: MARGIN_PX,
    getMinHeight: computeHeight,
    getMaxHeight: computeHeight,
  })
  new ResizeObserver(redraw).observe(root)
  forwardToGraph(root, canScroll)
}
