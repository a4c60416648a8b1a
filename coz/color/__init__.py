"""Align colors with a reference, and convert color profiles."""
