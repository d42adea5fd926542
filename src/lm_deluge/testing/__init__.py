"""Functions for tests, of this library and of its users."""

from lm_deluge.testing.decode import decode_body, decode_events
from lm_deluge.testing.encode import encode_events

__all__ = ["decode_body", "decode_events", "encode_events"]
