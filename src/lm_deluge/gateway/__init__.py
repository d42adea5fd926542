"""`deluge serve`: the dispatcher as an HTTP server, in the dialects of the providers."""
