"""OpenAI's Chat Completions API and of compatible hosts, from the server's side: requests read, answers written."""
