// @ts-check
// Adds "Copy diagnostics" to the menu of CoZ Zoom Viewer: what a bug report needs, and nothing private.
import { api } from "../../scripts/api.js"
import { nameRenderer } from "./host/canvas.js"
import { makeTranslator } from "./host/language.js"
import { notify } from "./host/toast.js"
import { getRecord } from "./viewer.js"
import { download } from "./viewer/panel.js"

/** Version of the pack; `make release` sets it. */
export const PACK_VERSION = "0.1.0"

const translate = makeTranslator(
  {
    copy: "Copy diagnostics",
    copied: "Diagnostics copied. They hold no text, file name or path.",
    saved: "The browser does not let this page use the clipboard. The diagnostics are saved as a file.",
  },
  {
    copy: "复制诊断信息",
    copied: "已复制诊断信息，其中不含文本、文件名或路径。",
    saved: "浏览器不允许此页面使用剪贴板。诊断信息已另存为文件。",
  },
)

/** @param {any} node */
export function listMenuItems(node) {
  if (node.comfyClass !== "CoZZoomViewer") return []
  return [{ content: translate("copy"), callback: () => copyDiagnostics(getRecord(node)) }]
}

/** Return the names of the options; their values may be paths. @param {string[]} words */
const listOptions = (words) =>
  words.filter((word) => word.startsWith("--")).map((word) => word.split("=")[0])

/** @param {any} record of the chain that is shown, if any */
async function copyDiagnostics(record) {
  const { system, devices } = await api.getSystemStats()
  const diagnostics = {
    pack: PACK_VERSION,
    comfyui: system.comfyui_version,
    frontend: globalThis.__COMFYUI_FRONTEND_VERSION__,
    renderer: nameRenderer(),
    python: system.python_version,
    torch: system.pytorch_version,
    system: system.os,
    options: listOptions(system.argv),
    ram: system.ram_total,
    devices: devices.map((/** @type {any} */ { name, vram_total }) => ({ name, vram_total })),
    browser: navigator.userAgent,
    chain: record && {
      scale: record.scale,
      frames: record.frames,
      windows: record.windows,
      target: record.target,
      agreements: record.agreements,
      invented: record.invented,
    },
  }
  const text = JSON.stringify(diagnostics)
  try {
    await navigator.clipboard.writeText(text)
    notify(translate("copied"))
  } catch {
    // Pages without https other than localhost have no clipboard.
    download(new Blob([text], { type: "application/json" }), "diagnostics.json")
    notify(translate("saved"))
  }
}
