"""Batches of many rows: input, output, progress."""
