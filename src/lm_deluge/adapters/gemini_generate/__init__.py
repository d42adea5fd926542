"""Gemini's generateContent API: requests written, answers read."""
