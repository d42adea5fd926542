"""Server side of Bedrock's InvokeModel API: parse requests, encode responses."""
