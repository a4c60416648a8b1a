"""Process an image in tiles: their layout, their inputs, and the blending of their results."""
