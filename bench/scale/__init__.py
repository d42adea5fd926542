"""Benchmarks of batches that use several processes."""
