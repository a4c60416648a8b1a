// @ts-check
import { app } from "../../scripts/app.js"
import { attachPicker } from "./picker.js"
import { attachReport, reportsReturned } from "./report.js"
import { attachViewer, listenToServer, outputsReturned } from "./viewer.js"

app.registerExtension({
  name: "chain-of-zoom",
  setup: listenToServer,
  nodeCreated(node) {
    attachPicker(node)
    attachViewer(node)
    attachReport(node)
  },
  onNodeOutputsUpdated() {
    outputsReturned()
    reportsReturned()
  },
})
