"""Server side of Gemini's generateContent API: parse requests, encode responses."""
