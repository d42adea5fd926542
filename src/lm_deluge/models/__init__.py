"""Rows: which model is served where, and at what price."""
