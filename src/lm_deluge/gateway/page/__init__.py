"""The chat page: its HTTP API, its store of conversations, and its static files."""
