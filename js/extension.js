// @ts-check
import { app } from "../../scripts/app.js"
import { nameAppInputs } from "./host/apps.js"
import { attachClosing, giveWayToProgress } from "./closing.js"
import { keepHeight } from "./host/height.js"
import { giveReturnedOutputs } from "./host/outputs.js"
import { attachOwnPicture } from "./own_picture.js"
import { attachPicker } from "./picker.js"
import { attachPrefix } from "./host/prefix.js"
import { attachReport } from "./report.js"
import { watchSaves } from "./host/saved.js"
import { hideUnread } from "./host/unread.js"
import { attachViewer, listenToServer } from "./viewer.js"

app.registerExtension({
  name: "chain-of-zoom",
  setup() {
    listenToServer()
    giveWayToProgress()
  },
  nodeCreated(node) {
    attachPicker(node)
    attachOwnPicture(node)
    attachViewer(node)
    attachReport(node)
    attachPrefix(node)
    watchSaves(node)
    hideUnread(node)
    keepHeight(node)
    attachClosing(node)
  },
  afterConfigureGraph: nameAppInputs,
  onNodeOutputsUpdated: giveReturnedOutputs,
})
