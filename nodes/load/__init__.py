"""The nodes that load models and pictures."""
