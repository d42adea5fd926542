"""Count the tokens of a prompt: at the provider where it has an endpoint for that, else estimated."""

from __future__ import annotations

import asyncio
import random
from itertools import count

from lm_deluge.adapters.catalog import find_adapter
from lm_deluge.adapters.count_api import CountsTokens, estimate_prompt, is_without_count, read_token_count
from lm_deluge.api_requests.call_plan import CallPlan
from lm_deluge.api_requests.documents import DocumentClient
from lm_deluge.api_requests.request import to_tools
from lm_deluge.api_requests.response_stream import timeout_error
from lm_deluge.client.call_options import CallOptions, Tools
from lm_deluge.client.dispatcher import Dispatcher
from lm_deluge.dispatch.scheduling.retry import RetryPolicy, Wait, decide_retry
from lm_deluge.errors import APIError, ConfigurationError, DelugeError
from lm_deluge.models.registry import find_provider
from lm_deluge.models.rows import ModelRow
from lm_deluge.prompt.conversation import Prompt, to_conversation
from lm_deluge.usage import TokenCount
from lm_deluge.wire.http import HttpRequest

__all__ = ["CountMethods"]


class CountMethods:
    """The methods of a client about the size of a prompt.

    Attributes:
        models: The rows of the client's models.
        dispatcher: What all calls share.
    """

    models: tuple[ModelRow, ...]
    dispatcher: Dispatcher

    async def count_tokens(self, prompt: Prompt, tools: Tools | None = None, *, model: str | None = None) -> TokenCount:
        """Return the number of tokens of a prompt, as the model counts them.

        The providers do not charge for counting. It is not held back by the client's limits, as the providers have
        limits of their own for it; a refused request is sent again like any other.

        Args:
            prompt: Text, or a conversation.
            tools: The tools that the call will have: their schemas are part of the prompt.
            model: One of the client's models; None: the first one.

        Returns:
            An integer. Its attribute `estimated` is true if the provider has no endpoint that counts tokens.

        Raises:
            ConfigurationError: The prompt or a tool cannot be sent, or the client has no such model.
            DelugeError: The provider refused, or did not answer.

        Example:
            >>> tokens = await client.count_tokens(conversation)
            >>> print(tokens, tokens.estimated)
        """
        row = _row_of(self.dispatcher, model or self.models[0].id)
        conversation, found_tools = to_conversation(prompt), to_tools(tools)
        provider = find_provider(row.provider)
        adapter = find_adapter(provider.adapter)
        if provider.counts_tokens and isinstance(adapter, CountsTokens):
            plan = self.dispatcher.planner(CallOptions(tools=tools)).plan(row.id, conversation)
            request = adapter.build_count(plan.call)
            if request is not None:
                try:
                    return TokenCount(await _counted(plan, request, adapter.count_field, self.dispatcher))
                except APIError as error:
                    if not is_without_count(error, plan.call):
                        raise
        return TokenCount(estimate_prompt(conversation.text_length(), found_tools), estimated=True)

    def context_window(self, model: str | None = None) -> int | None:
        """Return how many tokens prompt and answer may have together.

        Args:
            model: One of the client's models; None: the smallest window of all that share the calls.

        Returns:
            The number of tokens; None if it is not known.

        Raises:
            ConfigurationError: The client has no such model.

        Example:
            >>> recent = conversation.trimmed(client.context_window() - 4_000)
        """
        rows = self.models if model is None else (_row_of(self.dispatcher, model),)
        windows = [row.context_window for row in rows]
        known = [window for window in windows if window is not None]
        return min(known) if len(known) == len(windows) else None


def _row_of(dispatcher: Dispatcher, model: str) -> ModelRow:
    if model not in dispatcher.rows:
        raise ConfigurationError(
            f"{model!r} is none of the client's models", hint=f"Its models: {', '.join(dispatcher.rows)}."
        )
    return dispatcher.rows[model]


async def _counted(plan: CallPlan, request: HttpRequest, field: str, dispatcher: Dispatcher) -> int:
    """Return the provider's count, within the time that the client allows for a call, and with its retries."""
    total = plan.timeouts.total
    try:
        async with asyncio.timeout(total):
            return await _asked(plan, request, field, dispatcher)
    except TimeoutError as error:
        if isinstance(error, DelugeError):
            raise
        raise timeout_error("total", total or 0.0) from None


async def _asked(plan: CallPlan, request: HttpRequest, field: str, dispatcher: Dispatcher) -> int:
    options = dispatcher.options
    policy = RetryPolicy(options.max_attempts, options.max_retry_after_s)
    for attempt in count(1):
        try:
            answer = await DocumentClient(plan).ask(request)
            return read_token_count(answer.body, field)
        except DelugeError as error:
            chance = random.random()  # noqa: S311 - jitter
            decision = decide_retry(error, policy, attempt=attempt, time_left_s=float("inf"), chance=chance)
            if not isinstance(decision, Wait):
                raise
            await asyncio.sleep(decision.seconds)
    raise AssertionError  # the loop has no end
