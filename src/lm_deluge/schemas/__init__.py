"""JSON schemas of Python types, and validation of values."""
