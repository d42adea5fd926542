"""What the command `deluge batch` is made of."""
