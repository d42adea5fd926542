"""Send prompts as batches of the provider's own API. The id of a call is the number of its prompt."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import msgspec

from lm_deluge.adapters.batch_catalog import find_batch_api
from lm_deluge.api_requests.call_plan import CallPlan
from lm_deluge.client.call_options import NO_OPTIONS, CallOptions
from lm_deluge.client.dispatcher import CallPlanner, Dispatcher
from lm_deluge.config import ClientOptions
from lm_deluge.dispatch.batch.provider.runner import OnState, ProviderBatch
from lm_deluge.dispatch.hooks import unexpected_error
from lm_deluge.dispatch.journal.journal import Journal
from lm_deluge.dispatch.journal.records import fingerprint_of
from lm_deluge.errors import ConfigurationError, DelugeError
from lm_deluge.filters.compiled import compile_filters
from lm_deluge.models.registry import find_provider
from lm_deluge.models.rows import ModelRow
from lm_deluge.outputs.answer_type import schema_sent
from lm_deluge.prompt.conversation import Conversation, check_prompts, to_conversation
from lm_deluge.prompt.plain_values import to_plain
from lm_deluge.response import APIResponse

__all__ = ["check_provider_batch", "start_provider_batch"]


def check_provider_batch(models: Iterable[ModelRow], options: ClientOptions) -> None:
    """Check that the provider of each model has a batch API, and that the options are possible in a batch.

    Raises:
        ConfigurationError: A provider has no batch API (the message names those that have one), or there is a budget.
    """
    for model in models:
        find_batch_api(find_provider(model.provider))
    if options.max_cost is not None:
        raise ConfigurationError(
            "max_cost cannot be enforced in a provider's own batch", hint="Leave it out, or send the calls one by one."
        )


def start_provider_batch(
    dispatcher: Dispatcher,
    prompts: Iterable[Any],
    options: CallOptions,
    journal: str,
    on_state: OnState | None,
) -> AsyncIterator[tuple[int, APIResponse]]:
    """Return an iterator over the number and response of each prompt, in the order of arrival.

    Args:
        dispatcher: The dispatcher of the client.
        prompts: The prompts.
        options: The options of the calls.
        journal: Path of the journal.
        on_state: Called after each poll with the batch's name and state.

    Raises:
        ConfigurationError: A provider has no batch API, or there is a budget.
    """
    for name in ("prefer_model", "max_cost", "max_output_retries", "check_partial", "collect"):
        if getattr(options, name) != getattr(NO_OPTIONS, name):
            raise ConfigurationError(f"provider_batch takes no {name}", hint="Leave it out.")
    models, client_options = dispatcher.models, dispatcher.options
    planner = dispatcher.planner(options)
    check_provider_batch(models, client_options)
    names = [model.id for model in models]
    own: tuple[Any, ...] = (*options[:2], schema_sent(options.output), options.cache)
    own += (options.sampling,) if options.sampling else ()  # so that the fingerprints of older journals stay valid
    filters = compile_filters(options.filters)
    own += () if filters is None else (filters.digest,)
    shaping = (names, client_options.sampling_params, client_options.extra_body, *own)
    all_prompts = list(check_prompts(prompts))
    plans = (_plan_of(planner, models[number % len(models)], prompt) for number, prompt in enumerate(all_prompts))
    fingerprint = fingerprint_of({}, (_bytes_of(each) for each in (shaping, *all_prompts)))
    answers = _run(plans, Path(journal), fingerprint, client_options.max_attempts, on_state)
    return _restored(planner, answers)


async def _restored(
    planner: CallPlanner, answers: AsyncGenerator[tuple[int, APIResponse], None]
) -> AsyncIterator[tuple[int, APIResponse]]:
    async with aclosing(answers):
        async for number, response in answers:
            yield number, planner.restored(response)


async def _run(
    plans: Iterable[CallPlan | DelugeError], path: Path, fingerprint: str, max_attempts: int, on_state: OnState | None
) -> AsyncGenerator[tuple[int, APIResponse], None]:
    async with await Journal.open(path, fingerprint=fingerprint) as journal:
        batch = ProviderBatch(journal, max_attempts=max_attempts, on_state=on_state)
        async with aclosing(batch.run((str(number), plan) for number, plan in enumerate(plans))) as answers:
            async for call, response in answers:
                response.id = int(call)
                yield response.id, response


def _plan_of(planner: CallPlanner, model: ModelRow, prompt: Any) -> CallPlan | DelugeError:
    try:
        return planner.plan(model.id, to_conversation(prompt))
    except Exception as error:  # noqa: BLE001 - a prompt may be any object of the user
        return unexpected_error(error)


def _bytes_of(prompt: Any) -> bytes:
    """Return a prompt as bytes, for the fingerprint. A value that is no prompt becomes an error when it is planned."""
    try:
        return msgspec.json.encode(prompt, enc_hook=_messages_of)
    except (TypeError, ValueError, OverflowError, RecursionError):
        return type(prompt).__name__.encode()


def _messages_of(value: Any) -> Any:
    if isinstance(value, Conversation):
        return value.messages
    plain = to_plain(value)
    if plain is value:
        raise TypeError(f"{type(value).__name__} is not a part of a prompt")
    return plain
