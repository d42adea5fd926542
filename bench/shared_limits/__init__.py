"""One limit for several processes: see `__main__.py`."""
