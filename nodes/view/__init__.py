"""The nodes that show, save and load chains, and the server routes of the viewer."""
