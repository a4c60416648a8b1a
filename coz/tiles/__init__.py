"""A picture in tiles: where they lie, what each sees, and how they are joined."""
