"""Gemini's Interactions API: build requests, read responses."""
