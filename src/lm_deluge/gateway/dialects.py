"""The wire APIs that clients of the gateway speak: paths, errors, heartbeats and rate-limit headers of each."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from lm_deluge import errors
from lm_deluge.encoders.anthropic_messages.response import ENCODER as ANTHROPIC_MESSAGES
from lm_deluge.encoders.encoder import Encoder, StreamWriter
from lm_deluge.encoders.gemini_generate.response import ENCODER as GEMINI_GENERATE
from lm_deluge.encoders.ollama_chat.generate import ENCODER as OLLAMA_GENERATE
from lm_deluge.encoders.ollama_chat.response import ENCODER as OLLAMA_CHAT
from lm_deluge.encoders.openai_chat.errors import usual_status
from lm_deluge.encoders.openai_chat.response import ENCODER as OPENAI_CHAT
from lm_deluge.encoders.openai_responses.response import ENCODER as OPENAI_RESPONSES
from lm_deluge.errors import APIError

__all__ = ["DIALECTS", "Dialect", "KeyLimit", "open_writer", "status_of"]


class KeyLimit(NamedTuple):
    """A rate limit of a gateway key, as response headers state it.

    Attributes:
        kind: `requests` or `tokens`.
        limit: Amount per minute.
        remaining: What is left of it now.
        reset_s: Seconds until all of it is available again.
    """

    kind: str
    limit: int
    remaining: int
    reset_s: float


def _openai_limits(limits: list[KeyLimit]) -> dict[str, str]:
    """https://platform.openai.com/docs/guides/rate-limits#rate-limits-in-headers."""
    headers = {}
    for kind, limit, remaining, reset_s in limits:
        headers[f"x-ratelimit-limit-{kind}"] = str(limit)
        headers[f"x-ratelimit-remaining-{kind}"] = str(remaining)
        headers[f"x-ratelimit-reset-{kind}"] = f"{reset_s:.3f}s"
    return headers


def _anthropic_limits(limits: list[KeyLimit]) -> dict[str, str]:
    """https://platform.claude.com/docs/en/api/rate-limits#response-headers."""
    headers = {}
    now = dt.datetime.now(tz=dt.UTC)
    for kind, limit, remaining, reset_s in limits:
        reset_at = (now + dt.timedelta(seconds=reset_s)).strftime("%Y-%m-%dT%H:%M:%SZ")
        headers[f"anthropic-ratelimit-{kind}-limit"] = str(limit)
        headers[f"anthropic-ratelimit-{kind}-remaining"] = str(remaining)
        headers[f"anthropic-ratelimit-{kind}-reset"] = reset_at
    return headers


def _openai_error(inner: Any, request_id: str | None) -> Any:
    return inner if isinstance(inner, dict) and "error" in inner else {"error": inner}


def _anthropic_error(inner: Any, request_id: str | None) -> Any:
    is_whole = isinstance(inner, dict) and "error" in inner
    return inner if is_whole else {"type": "error", "error": inner, "request_id": request_id}


@dataclass(frozen=True, slots=True)
class Dialect:
    """One wire API, as clients of the gateway see it.

    Attributes:
        encoder: Parses its requests and writes its responses.
        heartbeat: What a silent stream sends; empty for an API whose clients understand no heartbeat.
        forwarded: Prefixes of request headers that are passed on to a provider of the same API.
        dropped: Fields of a request that change nothing about the answer, or only who may see it; a provider of another
            API does not get them.
        rate_limit_headers: Returns the headers that state the limits of a key.
        statuses: The HTTP statuses of error classes for which this API has one of its own.
        form_of: The wire API that this one is another form of: its providers know all fields of the parsed request.
        wrap_error: Returns the body of an error around the error object of a provider of the same API.
    """

    encoder: Encoder
    heartbeat: bytes = b": ping\n\n"
    forwarded: tuple[str, ...] = ()
    dropped: frozenset[str] = frozenset()
    rate_limit_headers: Callable[[list[KeyLimit]], dict[str, str]] = _openai_limits
    statuses: Mapping[type[APIError], int] = field(default_factory=dict)
    form_of: str = ""
    wrap_error: Callable[[Any, str | None], Any] = _openai_error

    @property
    def name(self) -> str:
        """Name of the wire API."""
        return self.encoder.name


_OF_OPENAI = frozenset(
    {
        *("user", "safety_identifier", "metadata", "store", "prompt_cache_key", "prompt_cache_retention"),
        *("client_metadata", "include", "truncation", "background", "prompt_cache_options"),
    }
)

DIALECTS: dict[str, Dialect] = {
    dialect.name: dialect
    for dialect in (
        Dialect(OPENAI_CHAT, forwarded=("openai-beta",), dropped=_OF_OPENAI | {"stream_options", "modalities"}),
        Dialect(OPENAI_RESPONSES, forwarded=("openai-beta",), dropped=_OF_OPENAI | {"reasoning", "tools"}),
        Dialect(
            ANTHROPIC_MESSAGES,
            heartbeat=b'event: ping\ndata: {"type": "ping"}\n\n',
            forwarded=("anthropic-beta", "anthropic-version"),
            # `fit_hints` decides what `thinking` and `output_config` mean for another API. `tools` is here if one of
            # them has more than a name, a description and a schema, for example `eager_input_streaming`.
            dropped=frozenset({"metadata", "context_management", "betas", "thinking", "output_config", "tools"}),
            rate_limit_headers=_anthropic_limits,
            statuses={errors.OverloadedError: 529},
            wrap_error=_anthropic_error,
        ),
        Dialect(GEMINI_GENERATE, dropped=frozenset({"safetySettings", "labels"})),
        Dialect(OLLAMA_CHAT, heartbeat=b"", dropped=frozenset({"keep_alive"})),
        Dialect(OLLAMA_GENERATE, heartbeat=b"", dropped=frozenset({"keep_alive"}), form_of="ollama-chat"),
    )
}


def open_writer(dialect: Dialect, *, created: int, include_usage: bool) -> StreamWriter:
    """Return a writer of one streamed response."""
    make = dialect.encoder.open_stream
    assert make is not None  # noqa: S101 - each dialect above has one
    return make(created=created, include_usage=include_usage)


def status_of(dialect: Dialect, error: APIError) -> int:
    """Return the HTTP status of an error in a dialect."""
    if error.status_code:
        return error.status_code
    own = next((dialect.statuses[each] for each in type(error).__mro__ if each in dialect.statuses), None)
    return own or usual_status(error)
