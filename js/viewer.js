// @ts-check
// CoZ Zoom Viewer: a chain as one picture to fly into.
import { app } from "../../scripts/app.js"
import { keptOutput, pastOutput } from "./viewer/record.js"
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
    getMinHeight: () => MIN_HEIGHT,
  })
  widget.serialize = false
  node.setSize(node.size.map((side, i) => Math.max(side, NODE_SIZE[i])))

  const chained = (name, act) => {
    const before = node[name]
    node[name] = function (...values) {
      before?.apply(this, values)
      act(...values)
    }
  }
  chained("onExecuted", (output) => viewer.receive(output))
  chained("onRemoved", () => viewer.close())
  // A workflow was loaded: a moment later its node knows its id.
  chained("onConfigure", () => {
    setTimeout(async () => {
      viewer.receive(keptOutput(node))
      if (!viewer.chains.length) viewer.receive(await pastOutput(node))
    })
  })
}

/** The frontend has put outputs back: another workflow's tab, or a run from the history. */
export function outputsReturned() {
  if (!app.isGraphReady) return
  for (const graph of [app.rootGraph, ...app.rootGraph.subgraphs.values()])
    for (const node of graph.nodes) viewers.get(node)?.receive(keptOutput(node))
}
