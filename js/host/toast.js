// @ts-check
import { app } from "../../../scripts/app.js"

/** Show a text at the page's corner for a while. @param {"warn" | "success"} severity */
const show = (severity, detail) =>
  app.extensionManager.toast.add({ severity, summary: "Chain-of-Zoom", detail, life: 6000 })

/** @param {string} detail */
export const warn = (detail) => show("warn", detail)

/** @param {string} detail */
export const notify = (detail) => show("success", detail)
