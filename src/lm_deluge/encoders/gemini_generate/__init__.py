"""Gemini's generateContent API, from the server's side: requests read, answers written."""
