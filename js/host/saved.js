// @ts-check
// Adds the chains that CoZ Save Chain saves to the list of CoZ Load Chain at once.
import { api } from "../../../scripts/api.js"
import { app } from "../../../scripts/app.js"
import { redraw } from "./canvas.js"
import { listGraphs } from "./graph.js"
import { callAfter } from "./hook.js"

const TYPE = "CoZLoadChain"

/** @param {any} node */
export function watchSaves(node) {
  if (node.comfyClass === "CoZSaveChain") callAfter(node, "onExecuted", refreshChainLists)
}

/** Number of requests for the list so far. */
let requestCount = 0

/** Update the list of all CoZ Load Chain nodes, as pressing R does for all nodes. */
async function refreshChainLists() {
  const number = ++requestCount
  const answer = await api.fetchApi(`/object_info/${TYPE}`).catch(() => null)
  if (!answer?.ok) return
  const { [TYPE]: definition } = await answer.json()
  if (number < requestCount) return // a newer request is under way
  await app.registerNodeDef(TYPE, definition)
  const [type, options] = definition.input.optional.folder
  const names = Array.isArray(type) ? type : options.options
  for (const { nodes } of listGraphs())
    for (const node of nodes) {
      if (node.comfyClass !== TYPE) continue
      const widget = node.widgets.find((/** @type {any} */ { name }) => name === "folder")
      widget.options.values = names
      widget.value ||= names[0] // the list was empty
    }
  redraw()
}
