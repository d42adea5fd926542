"""Batches that are submitted to a provider's own batch API."""
