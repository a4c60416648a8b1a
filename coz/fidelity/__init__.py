"""Measure how true a result is to its source, map what was invented, and correct the result."""
