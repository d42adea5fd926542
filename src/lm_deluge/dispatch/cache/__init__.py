"""The local cache of answers."""
