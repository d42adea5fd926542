"""Anthropic's Messages API: build requests, read responses."""
