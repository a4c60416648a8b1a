"""Full-Image SR, and the internal nodes that it expands into."""
