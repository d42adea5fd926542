"""Count the tokens of a prompt at the provider: the optional part of an adapter whose API has an endpoint for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Protocol, runtime_checkable

import msgspec

from lm_deluge.adapters.adapter import Call
from lm_deluge.adapters.token_counts import read_count
from lm_deluge.errors import APIError, ContentTypeError, NotFoundError
from lm_deluge.prompt.tool import ProviderTool, Tool
from lm_deluge.usage import estimate_tokens
from lm_deluge.wire.http import HttpRequest

__all__ = ["CountsTokens", "estimate_prompt", "is_without_count", "read_token_count"]

_NOT_ALLOWED, _NOT_IMPLEMENTED = 405, 501  # the statuses of servers that have no such endpoint, besides 404


@runtime_checkable
class CountsTokens(Protocol):
    """Additional method of an adapter whose API has an endpoint that counts the tokens of a prompt.

    Attributes:
        count_field: Name of the number in the answer.
    """

    count_field: ClassVar[str]

    def build_count(self, call: Call) -> HttpRequest | None:
        """Return the request, without credentials; None if the endpoint cannot count a part of the prompt."""
        ...


def read_token_count(body: bytes, field: str) -> int:
    """Return the number of tokens in an answer.

    Raises:
        ContentTypeError: The answer is not JSON, or has no such number.
    """
    try:
        data = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        data = None
    count = read_count(data.get(field)) if isinstance(data, dict) else None
    if count is None:
        raise ContentTypeError(f"the answer has no number {field!r} of tokens", reason="json", excerpt=body)
    return count


def is_without_count(error: APIError, call: Call) -> bool:
    """Whether an error means that the host, or the model there, has no endpoint that counts tokens.

    A proxy of the user may lack the endpoint that the provider itself has; a 404 of the provider is about the model.
    Bedrock counts for some models only: https://docs.aws.amazon.com/bedrock/latest/userguide/count-tokens.html
    """
    if "support counting tokens" in error.message:
        return True
    is_missing = isinstance(error, NotFoundError) or error.status_code in (_NOT_ALLOWED, _NOT_IMPLEMENTED)
    return is_missing and call.base_url != call.provider.base_url


def estimate_prompt(text_length: int, tools: Sequence[Tool | ProviderTool]) -> int:
    """Return the estimated number of tokens of a prompt and its tools.

    Args:
        text_length: `Conversation.text_length()` of the prompt.
        tools: The tools; their schemas are a part of the prompt.
    """
    return estimate_tokens(text_length + sum(map(_tool_length, tools)))


def _tool_length(tool: Tool | ProviderTool) -> int:
    if isinstance(tool, Tool):
        return len(tool.name) + len(tool.description) + len(msgspec.json.encode(tool.parameters))
    return len(msgspec.json.encode(tool.data))
