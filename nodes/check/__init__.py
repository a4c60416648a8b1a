"""The nodes that measure and correct a result."""
