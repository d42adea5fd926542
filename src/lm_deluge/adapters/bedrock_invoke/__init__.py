"""Bedrock's InvokeModel API: requests written, answers read."""
