"""Server side of Mistral's chat API: parse requests, encode responses."""
