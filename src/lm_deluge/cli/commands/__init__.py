"""One file for each command of `deluge`."""
