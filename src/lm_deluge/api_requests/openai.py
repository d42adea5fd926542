"""The function API: one request without a client, a queue or a second try."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any

from lm_deluge.adapters.adapter import Call
from lm_deluge.adapters.catalog import find_adapter
from lm_deluge.api_requests.answer import build_answer, build_stats
from lm_deluge.api_requests.call_plan import CallPlan
from lm_deluge.api_requests.credentials import Access, find_access
from lm_deluge.api_requests.request import build_call
from lm_deluge.api_requests.response_stream import ResponseStream, open_response_stream
from lm_deluge.config import PromptCache, SamplingParams, Timeouts
from lm_deluge.errors import DelugeError
from lm_deluge.events import TextDelta
from lm_deluge.models.registry import find_served_model
from lm_deluge.prompt.conversation import Prompt
from lm_deluge.prompt.tool import ProviderTool, Tool
from lm_deluge.response import APIResponse
from lm_deluge.transport.base import Transport

__all__ = ["shared_transport", "stream_chat"]

_transports: list[Transport] = []


def shared_transport() -> Transport:
    """Return the process's transport for calls without a client; aiohttp is imported on first use."""
    if not _transports:
        from lm_deluge.transport.http import AiohttpTransport

        _transports.append(AiohttpTransport())
    return _transports[0]


async def stream_chat(  # noqa: PLR0913 - keyword arguments of one request
    model_name: str,
    prompt: Prompt,
    sampling_params: SamplingParams | None = None,
    *,
    tools: Sequence[Tool | ProviderTool | Mapping[str, Any]] | None = None,
    output: Any = None,
    api_key: str | None = None,
    base_url: str | None = None,
    cache: PromptCache | None = None,
    timeouts: Timeouts | None = None,
    extra_headers: Mapping[str, str] | None = None,
    extra_body: Mapping[str, Any] | None = None,
) -> AsyncGenerator[str | APIResponse, None]:
    """Yield the answer's text as it comes, then one `APIResponse`.

    It is one request and no more: what `LLMClient` would try again is raised here.

    Raises:
        DelugeError: What the call ended with; `partial` is what was received before.
    """
    model = find_served_model(model_name, base_url)
    call = build_call(
        model,
        prompt,
        params=sampling_params,
        tools=tools,
        output=output,
        base_url=base_url,
        cache=cache,
        extra_headers=extra_headers,
        extra_body=extra_body,
    )
    loop = asyncio.get_running_loop()
    started_at = loop.time()
    access = find_access(call.provider, model, base_url=call.base_url, api_key=api_key, proxy=None)
    try:
        attempt = await _open(call, access, timeouts or Timeouts())
    except DelugeError as error:
        error.attempts = 1
        raise

    def answer() -> APIResponse:
        stats = build_stats(attempt, attempts=1, started_at=started_at, now=loop.time())
        return build_answer(attempt, call, stats)

    try:
        while events := await attempt.next_batch():
            for event in events:
                if type(event) is TextDelta and event.text:
                    yield event.text
        yield answer()
    except DelugeError as error:
        error.attempts = 1
        error.partial = answer() if attempt.builder.has_deltas else None
        raise
    finally:
        await attempt.close()


async def _open(call: Call, access: Access, timeouts: Timeouts) -> ResponseStream:
    adapter = find_adapter(call.provider.adapter)
    settled = timeouts.for_model(is_reasoning=bool(call.model.capabilities.reasoning))
    now = asyncio.get_running_loop().time()
    plan = CallPlan(
        adapter=adapter,
        call=call,
        request=adapter.build_request(call),
        key=access.key,
        transport=shared_transport(),
        timeouts=settled,
        proxy=access.proxy,
    )
    return await open_response_stream(plan, deadline=None if settled.total is None else now + settled.total)
