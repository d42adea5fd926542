"""The command line `deluge`."""
