"""Gemini's Interactions API, from the server's side: requests read, answers written."""
