"""Bedrock's Converse API, from the server's side: requests read, answers written."""
