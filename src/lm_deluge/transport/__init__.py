"""HTTP: sends requests and yields the bytes of responses."""
