"""Prompts as batches of the provider's own API, from a client: each prompt a call, its number the call's id."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any

import msgspec

from lm_deluge.dispatch.call_plan import CallPlan
from lm_deluge.dispatch.journal import Journal
from lm_deluge.dispatch.journal_records import fingerprint_of
from lm_deluge.dispatch.provider_batch import ProviderBatch
from lm_deluge.errors import DelugeError
from lm_deluge.models.registry import find_provider
from lm_deluge.models.rows import ModelRow
from lm_deluge.prompt.conversation import Conversation
from lm_deluge.providers.batch_api import BatchState
from lm_deluge.providers.batch_catalog import find_batch_api
from lm_deluge.response import APIResponse

__all__ = ["check_batch_apis", "run_provider_batch"]


def check_batch_apis(models: Iterable[ModelRow]) -> None:
    """See that the provider of each model takes batches.

    Raises:
        ConfigurationError: One does not; the error names those that do.
    """
    for model in models:
        find_batch_api(find_provider(model.provider))


async def run_provider_batch(
    prompts: Sequence[Any],
    plan_for: Callable[[int, Any], CallPlan],
    *,
    journal: Path,
    shaping: Any,
    max_attempts: int,
    on_state: Callable[[str, BatchState], None] | None,
) -> AsyncIterator[tuple[int, APIResponse]]:
    """Yield number and answer of each prompt as it comes.

    Args:
        prompts: All of them.
        plan_for: Makes the plan of a prompt, given its number.
        journal: The journal's file.
        shaping: What shapes the answers besides.
        max_attempts: How often a batch that the provider does not take for now is handed over.
        on_state: Is told what each poll finds.
    """
    plans = (_planned(plan_for, number, prompt) for number, prompt in enumerate(prompts))
    fingerprint = fingerprint_of({}, (_bytes_of(each) for each in (shaping, *prompts)))
    async with await Journal.open(journal, fingerprint=fingerprint) as opened:
        batch = ProviderBatch(opened, max_attempts=max_attempts, on_state=on_state)
        async with aclosing(batch.run((str(number), plan) for number, plan in enumerate(plans))) as answers:
            async for call, response in answers:
                response.id = int(call)
                yield response.id, response


def _planned(plan_for: Callable[[int, Any], CallPlan], number: int, prompt: Any) -> CallPlan | DelugeError:
    try:
        return plan_for(number, prompt)
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
