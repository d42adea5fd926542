"""Server side of OpenAI's Chat Completions API and of compatible hosts: parse requests, encode responses."""
