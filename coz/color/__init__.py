"""Colour: aligned with a reference, and converted from profiles."""
