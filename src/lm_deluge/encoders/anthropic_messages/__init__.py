"""Server side of Anthropic's Messages API: parse requests, encode responses."""
