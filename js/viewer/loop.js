// @ts-check
import { app } from "../../../scripts/app.js"
import { text } from "./texts.js"

const LOOP = "CoZChainLoop"

/** Inputs that take the target out of the hands of the two fields. */
const OVERRIDES = ["center_x", "center_y", "mask", "chain"]

/** The Chain Loop that feeds a node's input, through reroutes and from inside a subgraph. */
export function loopBefore(node, slot = 0) {
  const link = node.getInputLink(slot)
  let before = link && node.graph.getNodeById(link.origin_id)
  if (before?.isSubgraphNode?.())
    before = before.resolveSubgraphOutputLink(link.origin_slot)?.outputNode
  return before?.type === "Reroute" ? loopBefore(before) : before?.type === LOOP ? before : null
}

/** Sets the target of the loop that feeds a node. Returns what to tell the person. */
export function aimLoop(node, [x, y]) {
  const loop = loopBefore(node)
  if (!loop) return text("noLoop")
  const taken = OVERRIDES.find((name) => loop.inputs.some((i) => i.name === name && i.link != null))
  if (taken) return text("taken", { input: taken })
  for (const [name, value] of Object.entries({ center_x: x, center_y: y })) {
    const widget = loop.widgets.find((w) => w.name === name)
    widget.callback?.(value, app.canvas, loop) // rounds to the widget's step
    widget.value = value
  }
  loop.setDirtyCanvas?.(true, true)
  return text("aimed", { x: x.toFixed(4), y: y.toFixed(4) })
}
