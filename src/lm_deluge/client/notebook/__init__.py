"""Output in the cells of notebooks."""
