"""The inverse of the adapters, without I/O: parse requests and encode events as each wire API does."""
