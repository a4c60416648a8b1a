// @ts-check

/** @param {any} node */
export function attachPicker(node) {}
