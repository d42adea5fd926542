"""Cohere's chat API, version 2: its adapter, request and stream."""
