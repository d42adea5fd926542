"""Which encoder writes which wire API: one line each."""

from __future__ import annotations

from lm_deluge.encoders import openai_chat
from lm_deluge.encoders.encoder import Encoder
from lm_deluge.errors import ConfigurationError

__all__ = ["encoder_names", "find_encoder"]

_ENCODERS: dict[str, Encoder] = {
    "openai-chat": Encoder(
        name="openai-chat",
        parse_request=openai_chat.parse_request,
        encode_stream=openai_chat.encode_stream,
        encode_response=openai_chat.encode_response,
        encode_error=openai_chat.encode_error,
        encode_stream_error=openai_chat.encode_stream_error,
    ),
}


def encoder_names() -> list[str]:
    """Return the names of all wire APIs that can be written."""
    return sorted(_ENCODERS)


def find_encoder(name: str) -> Encoder:
    """Return the encoder of a wire API.

    Raises:
        ConfigurationError: There is none of that name; the error lists those there are.
    """
    if name not in _ENCODERS:
        raise ConfigurationError(f"no wire API {name!r} can be written", hint=f"Known: {', '.join(encoder_names())}.")
    return _ENCODERS[name]
