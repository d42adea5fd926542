"""Server side of Bedrock's Converse API: parse requests, encode responses."""
