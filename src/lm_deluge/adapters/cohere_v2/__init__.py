"""Cohere's chat API, version 2: requests written, answers read."""
