// @ts-check

/**
 * Lets something happen after a method of a node that the frontend calls.
 *
 * @param {any} node
 * @param {string} name of the method; the node need not have it yet
 * @param {(...values: any[]) => void} act  Gets what the method gets.
 */
export function after(node, name, act) {
  const before = node[name]
  node[name] = function (/** @type {any[]} */ ...values) {
    before?.apply(this, values)
    act(...values)
  }
}
