// @ts-check
// CoZ Zoom Viewer: a chain as one picture to fly into.
import { api } from "../../scripts/api.js"
import { app } from "../../scripts/app.js"
import { allGraphs } from "./graph.js"
import { after } from "./hook.js"
import { keptOutput, pastOutput } from "./outputs.js"
import { Viewer } from "./viewer/viewer.js"

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
  const widget = node.addDOMWidget("zoom", "COZ_VIEWER", root, {
    serialize: false,
    hideOnZoom: false,
    hideInPanel: true, // the frontend's side panel could only name it
    getMinHeight: () => MIN_HEIGHT,
  })
  widget.serialize = false
  node.setSize(node.size.map((side, i) => Math.max(side, NODE_SIZE[i])))

  after(node, "onExecuted", (output) => viewer.receive(output))
  // Not before: the frontend also makes nodes that never get into a graph, to copy from.
  after(node, "onAdded", () => viewer.begin())
  after(node, "onRemoved", () => viewer.close())
  // A workflow was loaded: a moment later its node knows its id.
  after(node, "onConfigure", () => {
    setTimeout(async () => {
      if (!node.graph) return // removed since
      viewer.receive(keptOutput(node))
      if (viewer.chains.length) return
      const output = await pastOutput(node, "coz_layers")
      if (!node.graph) return
      viewer.receive(keptOutput(node) ?? output) // run again meanwhile
      viewer.recall()
    })
  })
}

/** The frontend has put outputs back: another workflow's tab, or a run from the history. */
export function outputsReturned() {
  if (!app.isGraphReady) return
  eachViewer((viewer, node) => viewer.receive(keptOutput(node)))
}

/** The server answers again, perhaps after a restart. */
export function listenToServer() {
  api.addEventListener("reconnected", () => eachViewer((viewer) => viewer.retry()))
}

/** @param {(viewer: Viewer, node: any) => void} act */
function eachViewer(act) {
  for (const { nodes } of allGraphs())
    for (const node of nodes) if (viewers.has(node)) act(viewers.get(node), node)
}
