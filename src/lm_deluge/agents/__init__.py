"""Loops of calls in which a model uses tools."""
