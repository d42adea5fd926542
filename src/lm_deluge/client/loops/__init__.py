"""Agent loops of a client: their methods, and what the loops of a batch have in common."""
