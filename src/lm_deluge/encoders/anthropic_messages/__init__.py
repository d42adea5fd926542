"""Anthropic's Messages API, from the server's side: requests read, answers written."""
