// @ts-check
// CoZ Zoom Viewer shows a chain as one image to fly into.
import { api } from "../../scripts/api.js"
import { listGraphs } from "./host/graph.js"
import { callAfter } from "./host/hook.js"
import { receiveOutputs } from "./host/outputs.js"
import { Viewer } from "./viewer/viewer.js"
import { showOnNode } from "./host/widget.js"

const TYPE = "CoZZoomViewer"
const MIN_NODE_SIZE_PX = [540, 640]
const MIN_HEIGHT_PX = 280

const viewers = new WeakMap()

/** @param {any} node */
export function attachViewer(node) {
  if (node.comfyClass !== TYPE) return
  const viewer = new Viewer(node)
  viewers.set(node, viewer)
  const { root } = viewer.panel
  const options = { hideOnZoom: false, getMinHeight: () => MIN_HEIGHT_PX }
  showOnNode(node, "zoom", "COZ_VIEWER", root, options)
  node.setSize(node.size.map((side, i) => Math.max(side, MIN_NODE_SIZE_PX[i])))

  callAfter(node, "onExecuted", () => viewer.noteRun())
  receiveOutputs(node, "coz_layers", (output) => viewer.receive(output), () => viewer.reportMissing())
  // Not earlier: the frontend also creates nodes that it never adds to a graph, only to copy them.
  callAfter(node, "onAdded", () => viewer.observe())
  callAfter(node, "onRemoved", () => viewer.close())
}

/** Return the record of the chain that a viewer shows. @param {any} node */
export const getRecord = (node) => {
  const viewer = viewers.get(node)
  return viewer?.chains[viewer.index]?.record
}

/** Let the viewers fetch missing images when the server answers again. */
export function retryOnReconnect() {
  api.addEventListener("reconnected", () => {
    for (const { nodes } of listGraphs()) for (const node of nodes) viewers.get(node)?.retry()
  })
}
