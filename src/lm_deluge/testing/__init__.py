"""For tests of the library and of its users."""
