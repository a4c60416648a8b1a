"""The text of each step: the user's lines, or a cleaned-up answer of a model."""
