// @ts-check
// Shows the table of CoZ Chain Report on the node, and makes that node and CoZ What Was Invented
// large enough for their results.
import { forwardToGraph, canScroll } from "./host/canvas.js"
import { receiveOutputs } from "./host/outputs.js"
import { showOnNode } from "./host/widget.js"

const TYPE = "CoZMeasure"
const MIN_NODE_SIZES_PX = { [TYPE]: [840, 540], CoZDetailMap: [380, 900] }
const MIN_HEIGHT_PX = 110

const STYLE = `
  :host { overflow: auto; box-sizing: border-box; user-select: text; cursor: auto;
    color: var(--input-text); font: 12px/1.4 system-ui, sans-serif; }
  table { width: 100%; border-collapse: collapse; font-variant-numeric: tabular-nums; }
  th, td { padding: 2px 5px; text-align: right; white-space: nowrap; }
  th { font-weight: 600; }
  :is(th, td):nth-child(2) { text-align: left; }
  tr + tr { border-top: 1px solid var(--border-color); }
  i { display: inline-block; width: 9px; height: 9px; border-radius: 50%; margin-right: 6px; }
  p { margin: 6px; color: var(--descrip-text); }
  p:has(+ table) { font-size: 13px; color: var(--input-text); }
  p + p:has(+ table) { margin-top: 24px; }`

/** @param {any} node */
export function attachReport(node) {
  const least = MIN_NODE_SIZES_PX[node.comfyClass]
  if (least) node.setSize(node.size.map((side, i) => Math.max(side, least[i])))
  if (node.comfyClass !== TYPE) return
  const root = document.createElement("div")
  const content = document.createElement("div")
  const style = document.createElement("style")
  style.textContent = STYLE
  root.attachShadow({ mode: "open" }).append(style, content)
  forwardToGraph(root, canScroll)
  showOnNode(node, "report", "COZ_REPORT", root, { getMinHeight: () => MIN_HEIGHT_PX })
  receiveOutputs(node, "text", (output) => {
    if (!output?.text) return
    const reports = output.text.flatMap((text, i) => createReport(text, output.coz_colors?.[i]))
    content.replaceChildren(...reports)
  })
}

/**
 * Return the elements of one chain's report, a Markdown table and lines of text.
 *
 * @param {string} text
 * @param {string[]} [colors] of the dots that rate each frame's real pixels
 */
function createReport(text, colors) {
  const table = document.createElement("table")
  const shown = []
  for (const line of text.split("\n").filter(Boolean)) {
    if (!line.startsWith("|")) shown.push(createElement("p", line))
    else if (!line.startsWith("| -")) {
      if (!table.rows.length) shown.push(table)
      const row = table.insertRow()
      const cells = line.split("|").slice(1, -1)
      row.append(...cells.map((cell) => createElement(row.rowIndex ? "td" : "th", cell.trim())))
      const color = colors?.[row.rowIndex - 1]
      if (color) {
        const dot = document.createElement("i")
        dot.style.background = color
        row.cells[1].prepend(dot)
      }
    }
  }
  return shown
}

/** @param {string} tag @param {string} text */
function createElement(tag, text) {
  const made = document.createElement(tag)
  made.textContent = text
  return made
}
