// @ts-check
// CoZ Load Chain: its list has what CoZ Save Chain saves, at once.
import { api } from "../../../scripts/api.js"
import { app } from "../../../scripts/app.js"
import { redraw } from "./canvas.js"
import { allGraphs } from "./graph.js"
import { after } from "./hook.js"

const TYPE = "CoZLoadChain"

/** @param {any} node */
export function watchSaves(node) {
  if (node.comfyClass === "CoZSaveChain") after(node, "onExecuted", refresh)
}

/** How often the list was asked for. */
let asked = 0

/** What the frontend does with all nodes when R is pressed. */
async function refresh() {
  const number = ++asked
  const answer = await api.fetchApi(`/object_info/${TYPE}`).catch(() => null)
  if (!answer?.ok) return
  const { [TYPE]: definition } = await answer.json()
  if (number < asked) return // a newer list is on its way
  await app.registerNodeDef(TYPE, definition)
  const [type, options] = definition.input.optional.folder
  const names = Array.isArray(type) ? type : options.options
  for (const { nodes } of allGraphs())
    for (const node of nodes) {
      if (node.comfyClass !== TYPE) continue
      const widget = node.widgets.find((/** @type {any} */ { name }) => name === "folder")
      widget.options.values = names
      widget.value ||= names[0] // the list was empty
    }
  redraw()
}
