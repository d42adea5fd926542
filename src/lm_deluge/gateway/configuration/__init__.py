"""The settings of the gateway, and the files that they are read from."""
