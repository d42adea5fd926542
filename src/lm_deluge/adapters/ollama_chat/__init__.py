"""Ollama's chat API: requests written, answers read."""
