"""Gemini's generateContent API: build requests, read responses."""
