"""A server on the loopback that speaks the wire APIs, with every fault on demand."""
