"""The inverse of providers: requests read, events written; without I/O."""
