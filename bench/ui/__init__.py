"""Answers on their way to pages: `python -m bench.ui`."""
