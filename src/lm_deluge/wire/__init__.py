"""Bytes to frames and back, without I/O; knows no language model."""
