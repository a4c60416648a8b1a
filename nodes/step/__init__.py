"""The nodes of one zoom step."""
