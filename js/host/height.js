// @ts-check
import { callAfter } from "./hook.js"

/**
 * Give a node of a loaded workflow its saved height again. The frontend reduces it where an option
 * adds inputs, and then draws images below the node until the next frame.
 *
 * @param {any} node
 */
export function restoreHeight(node) {
  if (!node.comfyClass?.startsWith("CoZ")) return
  callAfter(node, "onConfigure", ({ size }) => {
    if (size?.[1] > node.size[1]) node.setSize([node.size[0], size[1]])
  })
}
