// @ts-check

/** @param {any} node */
export function attachViewer(node) {}
