"""The nodes that load models and images."""
