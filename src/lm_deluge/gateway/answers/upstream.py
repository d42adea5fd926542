"""One call of a client at the provider: passed on unchanged where both speak the same API, else translated."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain
from typing import Any, NamedTuple

import msgspec

from lm_deluge.adapters.adapter import Adapter, Call
from lm_deluge.adapters.capabilities import with_warnings
from lm_deluge.adapters.catalog import find_adapter
from lm_deluge.adapters.openai_chat.routing import by_responses, route_call
from lm_deluge.api_requests.call_plan import CallPlan
from lm_deluge.client.call_options import CallOptions
from lm_deluge.client.client import LLMClient
from lm_deluge.client.dispatcher import CallPlanner
from lm_deluge.config import Collect, SamplingParams
from lm_deluge.dispatch.attempts.call_stream import StreamCall
from lm_deluge.dispatch.budget import Budget
from lm_deluge.dispatch.cache.call import CachedCall
from lm_deluge.encoders.encoder import ParsedRequest
from lm_deluge.errors import APIError, DelugeError, UnsupportedParameterError
from lm_deluge.events import Event
from lm_deluge.gateway.dialects import Dialect
from lm_deluge.gateway.translation.custom_tools import CustomTools
from lm_deluge.gateway.translation.namespaces import ToolNamespaces
from lm_deluge.gateway.translation.opaque_data import OpaqueCarrier, unpacked, without_envelopes
from lm_deluge.gateway.translation.portable import fit_hints, left_out
from lm_deluge.prompt.conversation import Conversation
from lm_deluge.prompt.tool import ProviderTool
from lm_deluge.wire.http import HttpRequest

__all__ = ["UpstreamCall", "UpstreamPlanner", "open_upstream"]

JSON = dict[str, Any]

_CLIENT_LEFT = 499  # nginx's status for a client that closed the connection before the answer


class UpstreamPlanner:
    """Plans the requests of one call of a client of the gateway.

    Args:
        planner: Plans translated requests.
        dialect: The API of the client's request.
        request: The client's request.
        headers: The client's headers that a provider of the same API gets.
        can_relay: Whether a provider of the same API gets the request unchanged.
        unreadable: Why the request cannot be translated: it could not be parsed.

    Attributes:
        dropped: Fields and tools that a translated request left out.
        is_relayed: Whether the last planned request is the client's own.
        is_closed: Whether the client has left, so that nothing more is sent.
    """

    def __init__(
        self,
        planner: CallPlanner,
        dialect: Dialect,
        request: ParsedRequest,
        headers: Mapping[str, str],
        *,
        can_relay: bool,
        unreadable: DelugeError | None = None,
    ) -> None:
        self._unreadable = unreadable
        self._planner = planner
        self._dialect = dialect
        self._namespaces = ToolNamespaces(request.tools)
        self._custom = CustomTools(self._namespaces.flat_tools())
        self._opaque = OpaqueCarrier(dialect.name)
        self._is_translated = False
        self._request = request
        self._headers = headers
        self._can_relay = can_relay
        self.dropped: tuple[str, ...] = ()
        self.is_relayed = False
        self.is_closed = False

    async def before_attempt(self, number: int) -> None:
        """Refuse attempts after the client has left.

        Raises:
            APIError: It has.
        """
        if self.is_closed:
            raise APIError("the client has left", status_code=_CLIENT_LEFT)

    def plan(self, model: str, conversation: Conversation, collect: Collect = "stream") -> CallPlan:
        """Return the plan of a request to a model.

        Raises:
            ConfigurationError: The model or its API cannot take the call, or there is no key for it.
        """
        return self._planner.plan(model, conversation, collect, adapt=self._adapt)

    def plan_rest(self, model: str, conversation: Conversation, max_new_tokens: int | None) -> CallPlan:
        """Return the plan of a request for the rest of an answer."""
        return self._planner.plan_rest(model, conversation, max_new_tokens)

    def _adapt(self, call: Call) -> tuple[Call, Adapter, HttpRequest | None]:
        """Return the call, the adapter of the API that serves it, and the request if it is the client's own."""
        by_own_api = self._dialect.name == "openai-responses" and call.provider.has_responses
        call = by_responses(call) if by_own_api else route_call(call)
        adapter = find_adapter(call.provider.adapter)
        is_same = adapter.name in (self._dialect.name, self._dialect.form_of)
        self.is_relayed = self._can_relay and adapter.name == self._dialect.name
        self._is_translated = not is_same
        if self.is_relayed:
            call = msgspec.structs.replace(call, is_streamed=self._request.is_streamed)
            return call, adapter, self._unchanged(adapter, call)
        if self._unreadable is not None:
            raise self._unreadable
        owner, dialect = call.provider.opaque_owner, self._dialect.name
        conversation = unpacked(call.conversation, dialect=dialect, api=adapter.name, owner=owner)
        call = msgspec.structs.replace(call, conversation=conversation)
        if is_same:
            call = msgspec.structs.replace(call, extra_body={**self._request.extra, **call.extra_body})
        else:
            call = self._translated(adapter, call)
        return with_warnings(call, adapter), adapter, None

    def _unchanged(self, adapter: Adapter, call: Call) -> HttpRequest:
        """Return the client's own body, with the provider's name of the model, at the provider's address."""
        # Only for the address and the headers: a prompt of one word, without options that could be refused.
        bare = msgspec.structs.replace(
            call,
            conversation=Conversation().user("-"),
            tools=(),
            output=None,
            cache=None,
            params=SamplingParams(),
        )
        built = adapter.build_request(bare)
        body = {**self._request.raw, **call.extra_body}
        if "model" in body:
            body["model"] = call.model.name
        if self._dialect.name == "openai-chat" and self._request.is_streamed:
            # The gateway needs the usage; the frame with it is removed if the client did not ask for it.
            body["stream_options"] = {**(body.get("stream_options") or {}), "include_usage": True}
        data = without_envelopes(msgspec.json.encode(body), model=call.model.name)
        return msgspec.structs.replace(built, headers={**built.headers, **self._headers}, body=data)

    def _translated(self, adapter: Adapter, call: Call) -> Call:
        """Return the call without what another API has no counterpart for, and what does not change the answer.

        Raises:
            UnsupportedParameterError: A field would change the answer, and the other API has none for it.
        """
        fields = [name for name, value in self._request.extra.items() if not _is_neutral(name, value)]
        kept = [name for name in fields if name not in self._dialect.dropped]
        if kept:
            raise UnsupportedParameterError(
                f"{kept[0]} of {self._dialect.name} cannot be translated to {adapter.name}, the API of this model",
                parameter=kept[0],
            )
        call, fitted, hints = fit_hints(call, self._request.raw, api=adapter.name)
        conversation = self._custom.flat_conversation(self._namespaces.flat_conversation(call.conversation))
        call = msgspec.structs.replace(call, tools=self._custom.flat_tools(), conversation=conversation)
        own = [tool.name for tool in call.tools if isinstance(tool, ProviderTool)]
        names = [name for name in fields if name not in fitted]
        self.dropped = (
            *chain.from_iterable(left_out(name, self._request.extra[name]) for name in names),
            *hints,
            *(f"tool {name}" for name in own),
            *self._custom.lost,
        )
        tools = tuple(tool for tool in call.tools if not isinstance(tool, ProviderTool))
        return msgspec.structs.replace(call, tools=tools) if own else call

    def restored(self, events: list[Event]) -> list[Event]:
        """Return the events of a translated answer, with the names that the client has for its tools."""
        if not self._is_translated:
            return events
        return self._namespaces.restored(self._custom.restored(self._opaque.packed(events)))


# Values that are the default of their field, and so say nothing.
_NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "n": (1,),
    "background": (False,),
    "truncation": ("disabled",),
    "logit_bias": ({},),
    "modalities": (["text"],),
    "text": ({}, {"format": {"type": "text"}}),
    "reasoning": ({},),
    "include": (["reasoning.encrypted_content"],),  # an answer of another API has it anyway: translation/opaque_data.py
}


def _is_neutral(name: str, value: Any) -> bool:
    return value is None or value in _NEUTRAL.get(name, ())


class RelayedCall(StreamCall):
    """A call whose bytes may be passed on as they arrive.

    Attributes:
        is_streamed: Whether the client asked for a stream.
    """

    is_streamed = True
    _has_begun = False

    def take_bytes(self) -> bytes | None:
        """Return the bytes that arrived since the last call; None if the answer is translated.

        A host that answers with a document where a stream was asked for is translated, too.
        """
        stream = None if self._attempt is None else self._attempt.stream
        if stream is None or stream.kept is None:
            return None
        kept, stream.kept = b"".join(stream.kept), []
        if self.is_streamed and not self._has_begun and kept.lstrip().startswith((b"{", b"[")):
            stream.kept = None
            return None
        self._has_begun = True
        return kept


class UpstreamCall(NamedTuple):
    """One call of a client of the gateway.

    Attributes:
        running: The call as a stream of events.
        planner: Has what a translation left out, once the call is planned.
        budget: What the call may cost, and has cost so far; None: there is no limit.
    """

    running: StreamCall
    planner: UpstreamPlanner
    budget: Budget | None

    def abandon(self) -> bool:
        """Note that the client has left; return whether its answer is to be read to the end.

        It is aborted, unless its provider bills all of it anyway: then only its end has the usage that is billed. No
        further attempt is sent.
        """
        self.planner.is_closed = True
        if self.running.bills_when_abandoned:
            return True
        self.running.abort()
        return False

    def take_bytes(self) -> bytes | None:
        """Return the bytes that arrived since the last call; None if the answer is translated."""
        return self.running.take_bytes() if isinstance(self.running, RelayedCall) else None


def open_upstream(
    client: LLMClient,
    dialect: Dialect,
    request: ParsedRequest,
    headers: Mapping[str, str],
    *,
    max_cost: float | None = None,
    unreadable: DelugeError | None = None,
    form: Dialect | None = None,
) -> UpstreamCall:
    """Return the call of a client's request, before anything is sent.

    Args:
        client: Answers the call.
        dialect: The API of the gateway's client.
        request: Its request.
        headers: Its headers, names in lower case.
        max_cost: US dollars that the call may cost; None: as much as it takes.
        unreadable: Why the request can only be passed on unchanged: it could not be parsed.
        form: The API of the request's body, if it is not that of the answer.

    Raises:
        DelugeError: The call cannot be sent.
    """
    options, dispatcher = client.options, client.dispatcher
    # Kept bytes cannot be joined to those of another attempt, and a stored answer has none.
    can_relay = form is None and options.on_break != "continue" and options.local_cache in (None, False)
    forwarded = {name: value for name, value in headers.items() if name.startswith(dialect.forwarded)}
    planner = dispatcher.planner(
        CallOptions(
            tools=request.tools,
            sampling_params=request.params,
            output=request.output,
            cache=request.cache,
        )
    )
    own = UpstreamPlanner(planner, form or dialect, request, forwarded, can_relay=can_relay, unreadable=unreadable)
    spec = planner.spec(request.conversation, prefer=dispatcher.next_model().id, priority="interactive")
    # A client of the gateway cannot be notified that what it has received is void.
    on_break = "continue" if options.on_break == "continue" else "raise"
    budget = None if max_cost is None else Budget(max_cost, "this call")
    budgets = spec.budgets if budget is None else (*spec.budgets, budget)
    spec = msgspec.structs.replace(
        spec, planner=own, on_break=on_break, budgets=budgets, before_attempt=own.before_attempt
    )
    if not request.is_streamed:
        # The client gets nothing before the end; only a stream ends where the budget of its key does.
        is_cut = planner.collect == "auto" and budget is not None
        spec = msgspec.structs.replace(spec, collect="stream" if is_cut else planner.collect)
    if spec.is_cached:
        return UpstreamCall(CachedCall(spec, dispatcher.runner), own, budget)
    running = RelayedCall(spec, dispatcher.runner)
    running.is_streamed = request.is_streamed and dialect.encoder.is_sse
    return UpstreamCall(running, own, budget)
