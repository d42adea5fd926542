"""The limiter of several processes: its state is kept by a Redis or Valkey server that all of them use."""
