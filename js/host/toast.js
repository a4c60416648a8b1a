// @ts-check
import { app } from "../../../scripts/app.js"

/** Show a warning at the page's corner for a while. @param {string} detail */
export const warn = (detail) =>
  app.extensionManager.toast.add({ severity: "warn", summary: "Chain-of-Zoom", detail, life: 6000 })
