"""Server side of Ollama's chat API: parse requests, encode responses."""
