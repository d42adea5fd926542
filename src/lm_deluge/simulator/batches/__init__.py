"""Batch APIs of the simulated providers."""
