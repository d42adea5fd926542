"""Server side of OpenAI's Responses API: parse requests, encode responses."""
