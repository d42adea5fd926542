"""Conversations, messages, their parts and tools; independent of any provider."""
