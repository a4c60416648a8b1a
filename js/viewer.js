// @ts-check
// CoZ Zoom Viewer: a chain as one picture to fly into.
import { api } from "../../scripts/api.js"
import { allGraphs } from "./host/graph.js"
import { after } from "./host/hook.js"
import { receiveOutputs } from "./host/outputs.js"
import { Viewer } from "./viewer/viewer.js"
import { showOnNode } from "./host/widget.js"

const TYPE = "CoZZoomViewer"
const NODE_SIZE = [540, 640]
const MIN_HEIGHT = 280

const viewers = new WeakMap()

/** @param {any} node */
export function attachViewer(node) {
  if (node.comfyClass !== TYPE) return
  const viewer = new Viewer(node)
  viewers.set(node, viewer)
  const { root } = viewer.panel
  const options = { hideOnZoom: false, getMinHeight: () => MIN_HEIGHT }
  showOnNode(node, "zoom", "COZ_VIEWER", root, options)
  node.setSize(node.size.map((side, i) => Math.max(side, NODE_SIZE[i])))

  after(node, "onExecuted", () => viewer.announce())
  receiveOutputs(node, "coz_layers", (output) => viewer.receive(output), () => viewer.recall())
  // Not before: the frontend also makes nodes that never get into a graph, to copy from.
  after(node, "onAdded", () => viewer.begin())
  after(node, "onRemoved", () => viewer.close())
}

/** The server answers again, perhaps after a restart. */
export function listenToServer() {
  api.addEventListener("reconnected", () => {
    for (const { nodes } of allGraphs()) for (const node of nodes) viewers.get(node)?.retry()
  })
}
