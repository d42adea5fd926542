"""Which encoder writes which wire API: one line each."""

from __future__ import annotations

from lm_deluge.encoders import (
    anthropic,
    bedrock_converse,
    bedrock_invoke,
    cohere_v2,
    gemini_generate,
    gemini_interactions,
    mistral_chat,
    ollama_chat,
    openai_chat,
    openai_responses,
)
from lm_deluge.encoders.encoder import Encoder
from lm_deluge.errors import ConfigurationError

__all__ = ["encoder_names", "find_encoder", "list_encoders"]

_ENCODERS: dict[str, Encoder] = {
    encoder.name: encoder
    for encoder in (
        anthropic.ENCODER,
        bedrock_converse.ENCODER,
        bedrock_invoke.ENCODER,
        cohere_v2.ENCODER,
        gemini_generate.ENCODER,
        gemini_interactions.ENCODER,
        mistral_chat.ENCODER,
        ollama_chat.ENCODER,
        openai_chat.ENCODER,
        openai_responses.ENCODER,
    )
}


def encoder_names() -> list[str]:
    """Return the names of all wire APIs that can be written."""
    return sorted(_ENCODERS)


def list_encoders() -> list[Encoder]:
    """Return the encoders of all wire APIs."""
    return list(_ENCODERS.values())


def find_encoder(name: str) -> Encoder:
    """Return the encoder of a wire API.

    Raises:
        ConfigurationError: There is none of that name; the error lists those there are.
    """
    if name not in _ENCODERS:
        raise ConfigurationError(f"no wire API {name!r} can be written", hint=f"Known: {', '.join(encoder_names())}.")
    return _ENCODERS[name]
