"""The nodes that show, save and load chains, and the routes of their page."""
