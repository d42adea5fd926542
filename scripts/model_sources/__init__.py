"""Builds the rows of the model registry from public packages."""
