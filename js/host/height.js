// @ts-check
import { callAfter } from "./hook.js"

/**
 * Give a node of a loaded workflow its saved height again. While loading, the frontend reduces the
 * height of a node if one of its options adds inputs. The node's images would then be drawn below the node
 * until the next repaint.
 *
 * @param {any} node
 */
export function restoreHeight(node) {
  if (!node.comfyClass?.startsWith("CoZ")) return
  callAfter(node, "onConfigure", ({ size }) => {
    if (size?.[1] > node.size[1]) node.setSize([node.size[0], size[1]])
  })
}
