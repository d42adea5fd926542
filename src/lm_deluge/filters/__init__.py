"""Filters over the text of an answer, while it is generated."""
