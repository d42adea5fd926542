"""A request of a client of the gateway, parsed, with the client that answers it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec

from lm_deluge.client.client import LLMClient
from lm_deluge.config import SamplingParams
from lm_deluge.encoders.encoder import ParsedRequest
from lm_deluge.errors import BadRequestError, DelugeError
from lm_deluge.gateway.catalog import ModelCatalog
from lm_deluge.gateway.dialects import DIALECTS, Dialect
from lm_deluge.models.costs import request_cost
from lm_deluge.models.registry import SIMULATOR, find_provider
from lm_deluge.models.rows import ProviderRow
from lm_deluge.prompt.conversation import Conversation
from lm_deluge.usage import Usage, estimate_tokens

__all__ = ["IncomingCall", "parse_incoming", "token_of"]

_FIRST_OUTPUT = 2048
"""Tokens that are reserved for an answer at first: most are shorter, and no other call can use what is reserved."""

_KEY_HEADERS = ("x-api-key", "api-key", "x-goog-api-key")


class IncomingCall(NamedTuple):
    """A request, and what answers it.

    Attributes:
        unreadable: Why the request can only be passed on unchanged: it could not be parsed.
        form: The API of the request's body, if it is not that of the answer.
    """

    request: ParsedRequest
    client: LLMClient
    unreadable: DelugeError | None = None
    form: Dialect | None = None

    @property
    def is_background(self) -> bool:
        """Whether the answer goes on without its client, as the Responses API has it."""
        return self.request.raw.get("background") is True and "input" in self.request.raw

    def streamed(self) -> IncomingCall:
        """Return the same call with a stream as its answer."""
        if self.request.is_streamed:
            return self
        raw = {**self.request.raw, "stream": True}
        return self._replace(request=msgspec.structs.replace(self.request, is_streamed=True, raw=raw))

    def most_usage(self) -> Usage:
        """Return an estimate of what is reserved for the call.

        A stream reserves more while it grows. A document arrives at once, so all that it may have is reserved.
        """
        row, limit = self.client.models[0], self.request.params.max_new_tokens
        if self.request.is_streamed:
            output = min(limit or _FIRST_OUTPUT, _FIRST_OUTPUT)
        else:
            output = limit or row.max_output_tokens or _FIRST_OUTPUT
        tokens = estimate_tokens(self.request.conversation.text_length())
        return Usage(input_tokens=tokens, output_tokens=output, estimated=True)

    def cost(self, usage: Usage) -> float | None:
        """Return what a usage costs at most in US dollars; None if a model has no price."""
        costs = [
            0.0
            if row.id == SIMULATOR
            else request_cost(row, find_provider(row.provider), usage, tier=self.request.params.service_tier)
            for row in self.client.dispatcher.all_models
        ]
        known = [cost for cost in costs if cost is not None]
        return max(known) if len(known) == len(costs) else None


def token_of(headers: Mapping[str, str]) -> str | None:
    """Return the key that a client sent, in any of the places where the SDKs put it."""
    scheme, _, token = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and token.strip():
        return token.strip()
    return next((headers[name].strip() for name in _KEY_HEADERS if headers.get(name, "").strip()), None)


def parse_incoming(
    dialect: Dialect, body: bytes, catalog: ModelCatalog, *, model: str | None, is_streamed: bool | None
) -> IncomingCall:
    """Return a request, and the client that answers it.

    A request with parts that are not known here is still passed on to a provider of the same API.

    Raises:
        BadRequestError: The body is not a request of the dialect.
        NotFoundError: The model is not served.
    """
    try:
        request = dialect.encoder.parse_request(body, model=model, is_streamed=is_streamed)
    except BadRequestError as error:
        return _unreadable(dialect, body, catalog, error, model=model, is_streamed=is_streamed)
    return IncomingCall(request, catalog.find(request.model))


def _speaks(provider: ProviderRow, api: str) -> bool:
    return provider.adapter == api or (api == "openai-responses" and provider.has_responses)


def _in_form(form: Dialect, body: bytes, catalog: ModelCatalog) -> IncomingCall:
    """Return a request to Chat Completions with a body of the Responses API: Cursor sends such, and wants chunks.

    https://forum.cursor.com/t/159298 (2026-11)
    """
    request = form.encoder.parse_request(body)
    return IncomingCall(request, catalog.find(request.model), form=form)


def _unreadable(
    dialect: Dialect,
    body: bytes,
    catalog: ModelCatalog,
    error: BadRequestError,
    *,
    model: str | None,
    is_streamed: bool | None,
) -> IncomingCall:
    try:
        raw: Any = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise error from None
    name = raw.get("model", model) if isinstance(raw, dict) else None
    if not isinstance(name, str) or not name:
        raise error
    if dialect.name == "openai-chat" and "input" in raw and "messages" not in raw:
        return _in_form(DIALECTS["openai-responses"], body, catalog)
    client = catalog.find(name)
    if not any(_speaks(find_provider(row.provider), dialect.name) for row in client.models):
        raise error
    limit = next((raw[key] for key in ("max_completion_tokens", "max_tokens", "max_output_tokens") if raw.get(key)), 0)
    request = ParsedRequest(
        model=name,
        conversation=Conversation().user(body.decode("utf-8", "replace")),  # for the estimate of its tokens
        params=SamplingParams(max_new_tokens=limit if type(limit) is int and limit > 0 else None),
        is_streamed=raw.get("stream") is True or bool(is_streamed),
        wants_usage=isinstance(raw.get("stream_options"), dict) and raw["stream_options"].get("include_usage") is True,
        raw=raw,
    )
    return IncomingCall(request, client, error)
