"""Bedrock's InvokeModel API: build requests, read responses."""
