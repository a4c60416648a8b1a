// @ts-check

/**
 * Call a function after a node's method, which the frontend calls.
 *
 * @param {any} node
 * @param {string} name of the method; the node need not have it yet
 * @param {(...values: any[]) => void} act  Gets the arguments of the method.
 */
export function callAfter(node, name, act) {
  const before = node[name]
  node[name] = function (/** @type {any[]} */ ...values) {
    before?.apply(this, values)
    act(...values)
  }
}
