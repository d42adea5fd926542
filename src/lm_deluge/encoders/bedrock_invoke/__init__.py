"""Bedrock's InvokeModel API, from the server's side: requests read, answers written."""
