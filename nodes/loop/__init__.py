"""Chain Loop, and the internal nodes that it expands into."""
