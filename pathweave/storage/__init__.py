"""Files on disk: atomic writes, named tensors, and weights that others wrote with torch."""
