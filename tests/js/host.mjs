// What the scripts import of the frontend and expect of a browser; `node --import` runs it first.
import { registerHooks } from "node:module"

const FRONTEND = `export const app = { extensionManager: { setting: { get: () => "en" } } }
export const api = { addEventListener() {} }`

registerHooks({
  resolve: (name, context, next) =>
    /\/scripts\/(app|api)\.js$/.test(name)
      ? { url: `data:text/javascript,${encodeURIComponent(FRONTEND)}`, shortCircuit: true }
      : next(name, context),
})
globalThis.addEventListener = () => {}
globalThis.devicePixelRatio = 1
globalThis.matchMedia = () => ({ matches: false })
