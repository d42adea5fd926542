"""One request of a client: read, passed on or translated, and answered."""
