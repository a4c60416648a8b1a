"""The record of a zoom: its frames, windows and texts, in memory and in a folder."""
