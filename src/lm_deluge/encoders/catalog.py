"""The encoder of each wire API, by the name of the API."""

from __future__ import annotations

from lm_deluge.encoders.anthropic_messages.response import ENCODER as ANTHROPIC_MESSAGES
from lm_deluge.encoders.bedrock_converse.response import ENCODER as BEDROCK_CONVERSE
from lm_deluge.encoders.bedrock_invoke.response import ENCODER as BEDROCK_INVOKE
from lm_deluge.encoders.cohere_v2.response import ENCODER as COHERE_V2
from lm_deluge.encoders.encoder import Encoder
from lm_deluge.encoders.gemini_generate.response import ENCODER as GEMINI_GENERATE
from lm_deluge.encoders.gemini_interactions.response import ENCODER as GEMINI_INTERACTIONS
from lm_deluge.encoders.mistral_chat.response import ENCODER as MISTRAL_CHAT
from lm_deluge.encoders.ollama_chat.response import ENCODER as OLLAMA_CHAT
from lm_deluge.encoders.openai_chat.response import ENCODER as OPENAI_CHAT
from lm_deluge.encoders.openai_responses.response import ENCODER as OPENAI_RESPONSES
from lm_deluge.errors import ConfigurationError

__all__ = ["encoder_names", "find_encoder", "list_encoders"]

_ENCODERS: dict[str, Encoder] = {
    encoder.name: encoder
    for encoder in (
        ANTHROPIC_MESSAGES,
        BEDROCK_CONVERSE,
        BEDROCK_INVOKE,
        COHERE_V2,
        GEMINI_GENERATE,
        GEMINI_INTERACTIONS,
        MISTRAL_CHAT,
        OLLAMA_CHAT,
        OPENAI_CHAT,
        OPENAI_RESPONSES,
    )
}


def encoder_names() -> list[str]:
    """Return the sorted names of all wire APIs that have an encoder."""
    return sorted(_ENCODERS)


def list_encoders() -> list[Encoder]:
    """Return the encoders of all wire APIs."""
    return list(_ENCODERS.values())


def find_encoder(name: str) -> Encoder:
    """Return the encoder of a wire API.

    Raises:
        ConfigurationError: No wire API has this name; the hint lists all names.
    """
    if name not in _ENCODERS:
        raise ConfigurationError(
            f"there is no encoder for a wire API {name!r}", hint=f"Use one of: {', '.join(encoder_names())}."
        )
    return _ENCODERS[name]
