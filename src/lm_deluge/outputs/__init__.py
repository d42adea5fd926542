"""Answers as typed objects, while they are generated."""
