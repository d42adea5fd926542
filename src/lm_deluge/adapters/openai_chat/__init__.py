"""OpenAI's Chat Completions API, and the hosts that speak it: requests written, answers read."""
