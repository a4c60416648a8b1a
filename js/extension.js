// @ts-check
import { app } from "../../scripts/app.js"
import { attachPicker } from "./picker.js"
import { attachViewer, outputsReturned } from "./viewer.js"

app.registerExtension({
  name: "chain-of-zoom",
  nodeCreated(node) {
    attachPicker(node)
    attachViewer(node)
  },
  onNodeOutputsUpdated() {
    outputsReturned()
  },
})
