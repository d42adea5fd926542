"""OpenAI's Responses API, from the server's side: requests read, answers written."""
