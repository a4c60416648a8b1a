"""Measure how much detail a view has, and adapt sampling and fusion to it."""
