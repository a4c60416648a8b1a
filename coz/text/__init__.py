"""What each step is told: the user's lines, and a model's answer cleaned up."""
