"""Weight files of other projects, read safely and named as the host names them."""
