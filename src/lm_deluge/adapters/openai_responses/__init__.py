"""OpenAI's Responses API: its adapter, request and stream."""
