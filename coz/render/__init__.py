"""Draw a chain: the zoom as a video, the strip, the heat map."""
