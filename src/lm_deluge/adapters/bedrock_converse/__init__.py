"""Bedrock's Converse API: build requests, read responses."""
