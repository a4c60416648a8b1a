// @ts-check
import { app } from "../../../scripts/app.js"

/**
 * Return a function that looks up a text in the frontend's language and fills in {name}.
 *
 * @template {Record<string, string>} T
 * @param {T} en
 * @param {T} zh
 */
export const makeTranslator = (en, zh) => {
  /** @param {keyof T & string} key @param {Record<string, string | number>} [values] */
  return (key, values = {}) => {
    const language = app.extensionManager.setting.get("Comfy.Locale")
    const words = (language?.startsWith("zh") ? zh : en)[key]
    return words.replace(/\{(\w+)\}/g, (_, name) => String(values[name]))
  }
}
