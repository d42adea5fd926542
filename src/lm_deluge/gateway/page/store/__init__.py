"""The database of the page: conversations, messages, files and sessions."""
