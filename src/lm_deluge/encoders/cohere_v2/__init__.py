"""Cohere's chat API, version 2, from the server's side: requests read, answers written."""
