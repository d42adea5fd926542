"""Benchmarks: speed as a ratio to a reference that runs on the same machine (`make bench`)."""
