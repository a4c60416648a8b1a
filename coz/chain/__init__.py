"""A chain as data: its frames, windows and texts, in memory and in a folder."""
