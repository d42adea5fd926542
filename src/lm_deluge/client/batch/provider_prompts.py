"""Prompts as batches of the provider's own API, from a client: each prompt a call, its number the call's id."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import aclosing
from pathlib import Path
from typing import Any, TypeAlias

import msgspec

from lm_deluge.adapters.batch_api import BatchState
from lm_deluge.adapters.batch_catalog import find_batch_api
from lm_deluge.api_requests.call_plan import CallPlan
from lm_deluge.api_requests.request import to_schema
from lm_deluge.client.call_options import CallOptions
from lm_deluge.client.dispatcher import CallPlanner, Dispatcher
from lm_deluge.config import ClientOptions
from lm_deluge.dispatch.batch.provider.runner import ProviderBatch
from lm_deluge.dispatch.journal.journal import Journal
from lm_deluge.dispatch.journal.records import fingerprint_of
from lm_deluge.errors import ConfigurationError, DelugeError
from lm_deluge.models.registry import find_provider
from lm_deluge.models.rows import ModelRow
from lm_deluge.prompt.conversation import Conversation, to_conversation
from lm_deluge.response import APIResponse

__all__ = ["check_provider_batch", "start_provider_batch"]

OnState: TypeAlias = Callable[[str, BatchState], None]


def check_provider_batch(models: Iterable[ModelRow], options: ClientOptions) -> None:
    """See that the provider of each model takes batches, and that nothing is asked that a batch cannot keep.

    Raises:
        ConfigurationError: It does not; the error names those that do. Or there is a budget.
    """
    for model in models:
        find_batch_api(find_provider(model.provider))
    if options.max_cost is not None:
        raise ConfigurationError(
            "max_cost cannot be kept in a provider's own batch", hint="Leave it out, or have the calls made one by one."
        )


def start_provider_batch(
    dispatcher: Dispatcher,
    prompts: Iterable[Any],
    asked: CallOptions,
    journal: str,
    on_state: OnState | None,
) -> AsyncIterator[tuple[int, APIResponse]]:
    """Return what yields number and answer of each prompt as it comes.

    Raises:
        ConfigurationError: A provider has no batch API, or there is a budget.
    """
    for name in ("prefer_model", "max_cost"):
        if getattr(asked, name) is not None:
            raise ConfigurationError(f"provider_batch takes no {name}", hint="Leave it out.")
    models, options = dispatcher.models, dispatcher.options
    planner = dispatcher.planner(asked)
    check_provider_batch(models, options)
    names = [model.id for model in models]
    shaping = (names, options.sampling_params, options.extra_body, *asked[:2], to_schema(asked.output), asked.cache)
    held = list(prompts)
    plans = (_planned(planner, models[number % len(models)], prompt) for number, prompt in enumerate(held))
    fingerprint = fingerprint_of({}, (_bytes_of(each) for each in (shaping, *held)))
    return _run(plans, Path(journal), fingerprint, options.max_attempts, on_state)


async def _run(
    plans: Iterable[CallPlan | DelugeError], path: Path, fingerprint: str, max_attempts: int, on_state: OnState | None
) -> AsyncIterator[tuple[int, APIResponse]]:
    async with await Journal.open(path, fingerprint=fingerprint) as journal:
        batch = ProviderBatch(journal, max_attempts=max_attempts, on_state=on_state)
        async with aclosing(batch.run((str(number), plan) for number, plan in enumerate(plans))) as answers:
            async for call, response in answers:
                response.id = int(call)
                yield response.id, response


def _planned(planner: CallPlanner, model: ModelRow, prompt: Any) -> CallPlan | DelugeError:
    try:
        return planner.plan(model.id, to_conversation(prompt))
    except DelugeError as error:
        return error


def _bytes_of(prompt: Any) -> bytes:
    """Return what a prompt says, as bytes. What is no prompt is an error when it is its turn."""
    try:
        return msgspec.json.encode(prompt, enc_hook=_messages_of)
    except (TypeError, ValueError, OverflowError, RecursionError):
        return type(prompt).__name__.encode()


def _messages_of(value: Any) -> Any:
    if isinstance(value, Conversation):
        return value.messages
    raise TypeError(f"{type(value).__name__} is no part of a prompt")
