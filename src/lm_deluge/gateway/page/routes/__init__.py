"""The HTTP API of the page, and its static files."""
