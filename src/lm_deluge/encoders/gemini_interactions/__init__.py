"""Server side of Gemini's Interactions API: parse requests, encode responses."""
