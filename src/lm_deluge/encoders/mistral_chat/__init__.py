"""Mistral's chat API, from the server's side: requests read, answers written."""
