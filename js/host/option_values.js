// @ts-check
// Saved values have no names: the frontend assigns them in the order of the widgets. If an option of a
// combo has gained an input since the workflow was saved, that input would take the value of the next widget.

/** Values of the widget that the frontend adds after a seed. */
const SEED_CONTROL = ["fixed", "increment", "decrement", "randomize"]

/** Types of the inputs that are widgets. */
const WIDGET_TYPES = ["INT", "FLOAT", "STRING", "BOOLEAN", "COMBO"]

/** When saved values are loaded, add the defaults of the inputs that they lack. @param {any} node */
export function insertNewOptionValues(node) {
  const { required, optional } = node.constructor.nodeData?.input ?? {}
  const combos = Object.entries({ ...required, ...optional }).filter(
    ([, [type]]) => type === "COMFY_DYNAMICCOMBO_V3",
  )
  if (!node.comfyClass?.startsWith("CoZ") || !combos.length) return
  const { configure } = node
  node.configure = function (/** @type {any} */ saved) {
    const values = insertDefaults(saved, combos)
    return configure.call(this, values ? { ...saved, widgets_values: values } : saved)
  }
}

/**
 * Return the saved values of a node, with the defaults of the inputs that its options have gained since.
 *
 * @param {any} saved
 * @param {[string, any][]} combos  The name and the definition of each combo with options that add inputs.
 */
function insertDefaults({ inputs, widgets_values: values }, combos) {
  const names = inputs?.flatMap((/** @type {any} */ { widget }) => widget?.name ?? [])
  if (!names?.length || !Array.isArray(values)) return null
  const rest = [...values]
  const saved = names.map((/** @type {string} */ name) => {
    const own = [rest.shift()]
    if (name.endsWith("seed") && SEED_CONTROL.includes(rest[0])) own.push(rest.shift())
    return { name, own }
  })
  for (const [combo, [, { options }]] of combos) {
    const chosen = saved.find((/** @type {any} */ { name }) => name === combo)?.own[0]
    const option = options.find((/** @type {any} */ { key }) => key === chosen)
    for (const [name, [type, { default: value }]] of Object.entries(option?.inputs.optional ?? {})) {
      const full = `${combo}.${name}`
      if (!WIDGET_TYPES.includes(type) || names.includes(full)) continue
      const last = saved.findLastIndex(
        (/** @type {any} */ each) => each.name === combo || each.name.startsWith(`${combo}.`),
      )
      saved.splice(last + 1, 0, { name: full, own: [value] })
    }
  }
  return [...saved.flatMap((/** @type {any} */ { own }) => own), ...rest]
}
