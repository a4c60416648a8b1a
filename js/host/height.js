// @ts-check
import { after } from "./hook.js"

/**
 * Gives a node of a loaded workflow its saved height back. The frontend cuts it where a choice
 * brings inputs of its own; without it, pictures would be drawn below the node until the next frame.
 *
 * @param {any} node
 */
export function keepHeight(node) {
  if (!node.comfyClass?.startsWith("CoZ")) return
  after(node, "onConfigure", ({ size }) => {
    if (size?.[1] > node.size[1]) node.setSize([node.size[0], size[1]])
  })
}
