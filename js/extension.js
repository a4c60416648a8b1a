// @ts-check
import { app } from "../../scripts/app.js"
import { listMenuItems } from "./diagnostics.js"
import { completeAppInputIds } from "./host/apps.js"
import { attachClosingText, removeTextOnProgress } from "./closing.js"
import { restoreHeight } from "./host/height.js"
import { insertNewOptionValues } from "./host/option_values.js"
import { deliverRestoredOutputs, keepAllImages } from "./host/outputs.js"
import { attachOwnPicture } from "./own_picture.js"
import { attachPicker } from "./picker.js"
import { expandPrefix } from "./host/prefix.js"
import { attachReport } from "./report.js"
import { watchSaves } from "./host/saved.js"
import { hideUnreadInputs } from "./host/unread.js"
import { attachViewer, retryOnReconnect } from "./viewer.js"

app.registerExtension({
  name: "chain-of-zoom",
  setup() {
    retryOnReconnect()
    removeTextOnProgress()
  },
  nodeCreated(node) {
    insertNewOptionValues(node)
    attachPicker(node)
    attachOwnPicture(node)
    attachViewer(node)
    attachReport(node)
    expandPrefix(node)
    watchSaves(node)
    hideUnreadInputs(node)
    restoreHeight(node)
    keepAllImages(node)
    attachClosingText(node)
  },
  afterConfigureGraph: completeAppInputIds,
  getNodeMenuItems: listMenuItems,
  onNodeOutputsUpdated: deliverRestoredOutputs,
})
