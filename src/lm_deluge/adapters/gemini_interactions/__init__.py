"""Gemini's Interactions API: requests written, answers read."""
