"""Wire formats: bytes to frames and back, without I/O, independent of any language model."""
