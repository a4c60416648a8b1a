"""How much detail a view has: sampling and fusion that adapt to it."""
