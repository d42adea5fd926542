"""Batches handed over to a provider's own batch API."""
