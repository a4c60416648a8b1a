// @ts-check
// CoZ Chain Report: its table, on the node.
import { leaveToGraph, scrolls } from "./canvas.js"
import { receiveOutputs } from "./outputs.js"

const TYPE = "CoZMeasure"
const NODE_SIZE = [480, 340]
const MIN_HEIGHT = 110

const STYLE = `
  :host { overflow: auto; box-sizing: border-box; user-select: text; cursor: auto;
    color: var(--input-text); font: 12px/1.4 system-ui, sans-serif; }
  table { width: 100%; border-collapse: collapse; font-variant-numeric: tabular-nums; }
  th, td { padding: 2px 5px; text-align: right; white-space: nowrap; }
  th { font-weight: 600; }
  p + table { margin-top: 12px; }
  tr + tr { border-top: 1px solid var(--border-color); }
  p { margin: 6px; color: var(--descrip-text); }`

/** @param {any} node */
export function attachReport(node) {
  if (node.comfyClass !== TYPE) return
  const root = document.createElement("div")
  const content = document.createElement("div")
  const style = document.createElement("style")
  style.textContent = STYLE
  root.attachShadow({ mode: "open" }).append(style, content)
  leaveToGraph(root, scrolls)
  const widget = node.addDOMWidget("report", "COZ_REPORT", root, {
    serialize: false,
    hideInPanel: true, // the frontend's side panel could only name it
    getMinHeight: () => MIN_HEIGHT,
  })
  widget.serialize = false
  node.setSize(node.size.map((side, i) => Math.max(side, NODE_SIZE[i])))

  receiveOutputs(node, "text", (output) => {
    if (output?.text) content.replaceChildren(...output.text.flatMap(elements))
  })
}

/** Of one chain: a Markdown table and lines of text. @param {string} text */
function elements(text) {
  const table = document.createElement("table")
  const notes = []
  for (const line of text.split("\n").filter(Boolean)) {
    if (!line.startsWith("|")) notes.push(element("p", line))
    else if (!line.startsWith("| -")) {
      const row = table.insertRow()
      const cells = line.split("|").slice(1, -1)
      row.append(...cells.map((cell) => element(row.rowIndex ? "td" : "th", cell.trim())))
    }
  }
  return [table, ...notes]
}

/** @param {string} tag @param {string} text */
function element(tag, text) {
  const made = document.createElement(tag)
  made.textContent = text
  return made
}
