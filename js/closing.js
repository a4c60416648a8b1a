// @ts-check
// The last lines of a node's run, on the node. Frontends from 1.58 on drop the host's own progress
// text when the run ends.
import { api } from "../../scripts/api.js"
import { leaveToGraph, redraw, scrolls } from "./host/canvas.js"
import { nodeAt } from "./host/graph.js"
import { receiveOutputs } from "./host/outputs.js"
import { removeWidget, showOnNode } from "./host/widget.js"

const KEY = "coz_text"
/** The widget of the host's progress text. */
const PROGRESS = "$$node-text-preview"
/** Pixels. A longer text is scrolled. */
const MAX_HEIGHT = 180
const MARGIN = 10

const STYLE = `
  :host { overflow: auto; box-sizing: border-box; max-height: ${MAX_HEIGHT}px; border-radius: 6px;
    background: var(--comfy-input-bg); color: var(--input-text); font: 12px/1.45 system-ui, sans-serif; }
  div { padding: 6px 10px; overflow-wrap: anywhere; user-select: text; cursor: text; }
  span { display: block; white-space: pre-wrap; }
  span + span { margin-top: 3px; }
  .dotted { padding-left: 15px; text-indent: -15px; }
  .dotted::before { content: ""; display: inline-block; width: 9px; height: 9px; margin-right: 6px;
    border-radius: 50%; background: var(--dot); }
  div + div { border-top: 1px solid var(--border-color); }`

/** @param {any} node */
export function attachClosing(node) {
  if (!node.comfyClass?.startsWith("CoZ")) return
  receiveOutputs(node, KEY, (output) => {
    if (output) draw(node, output[KEY] ?? [], new Map(output.coz_dots)) // the cache may have none
  })
}

/** The text of an earlier run gives way to what a node says while it runs again. */
export function giveWayToProgress() {
  api.addEventListener("progress_text", ({ detail }) => {
    const node = nodeAt(String(detail.nodeId))
    if (node) removeWidget(node, KEY)
  })
}

/**
 * @param {any} node
 * @param {string[]} texts one for each run of the node: for each item of a list
 * @param {Map<string, string>} dots by line, the colour of the dot before it
 */
function draw(node, texts, dots) {
  removeWidget(node, KEY)
  if (!texts.length) return
  removeWidget(node, PROGRESS)
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

  const height = () => {
    const needed = parts.reduce((sum, part) => sum + part.offsetHeight, 0)
    return Math.min(needed, MAX_HEIGHT) + 2 * MARGIN
  }
  showOnNode(node, KEY, "COZ_TEXT", root, {
    hideOnZoom: false,
    margin: MARGIN,
    getMinHeight: height,
    getMaxHeight: height,
  })
  new ResizeObserver(redraw).observe(root)
  leaveToGraph(root, scrolls)
}
