"""OpenAI's Chat Completions API, and the hosts that speak it: its adapter, request, stream and batch API."""
