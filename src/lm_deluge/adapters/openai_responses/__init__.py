"""OpenAI's Responses API: requests written, answers read."""
