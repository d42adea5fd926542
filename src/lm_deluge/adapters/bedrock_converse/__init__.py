"""Bedrock's Converse API: requests written, answers read."""
