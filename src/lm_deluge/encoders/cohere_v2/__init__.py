"""Server side of Cohere's chat API, version 2: parse requests, encode responses."""
