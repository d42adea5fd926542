"""Anthropic's Messages API: requests written, answers read."""
