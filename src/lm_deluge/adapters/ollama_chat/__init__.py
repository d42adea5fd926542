"""Ollama's chat API: its adapter, request and stream."""
