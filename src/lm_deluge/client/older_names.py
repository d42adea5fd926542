"""The names that the older lm-deluge (0.0.168) has for options and methods of a client: translated, or refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, get_args

from lm_deluge.config import PromptCache
from lm_deluge.errors import ConfigurationError, UnknownModelError
from lm_deluge.models.registry import find_model, find_provider

__all__ = ["REPLACED_METHODS", "translate_options"]

_RENAMED = {"fallback_models": "fallback", "cache": "local_cache"}
_REPLACED = {
    "request_timeout": "Write timeouts=Timeouts(total=60): the seconds of the whole call, retries included.",
    "thinking_budget": 'Write reasoning_effort="low", "medium" or "high": each provider has a budget for it.',
    "global_effort": 'Write reasoning_effort="high", or verbosity="low" for the length of the answer.',
    "task_budget": "max_cost limits what a call may cost, and max_new_tokens how long an answer may be.",
    "cache_ttl": "The provider's default is used. Pass the fields of another one in extra_body.",
    "strict_tools": "It is a property of each tool: Tool(..., strict=True).",
    "media_resolution": 'It is a property of each image: message.add_image("photo.png", detail="high").',
    "thinking_prefix_mismatch": "Pass the provider's own field in extra_body.",
    "force_local_mcp": "MCP servers always run locally: leave it out.",
    "name": "A client has no name: leave it out.",
}
_LATEST_PROGRESS = {"manual": "plain"}

REPLACED_METHODS = {
    "with_model": "Make another client: LLMClient(model, ...).",
    "with_models": "Make another client: LLMClient(models, ...).",
    "with_limits": "Pass the limits to LLMClient: LLMClient(model, max_requests_per_minute=500).",
    "from_dict": "Write LLMClient(**options).",
    "from_yaml": "Load the file, and write LLMClient(**options).",
    "print_usage": "Add up the cost and the usage of the responses: sum(response.cost or 0 for response in responses).",
    "reset_tracker": "Each batch has a display of its own: leave it out.",
    "process_single_request": "Write await client.start(prompt), or await client.stream(prompt).",
    "submit_batch_job": "Write client.provider_batch(prompts, journal=...), an iterator that also waits.",
    "wait_for_batch_job": "client.provider_batch(prompts, journal=...) resumes a batch that was handed over before.",
}
"""Methods that a client does not have, each with what to write instead."""


def translate_options(
    model: str | Sequence[str] | None, options: Mapping[str, Any]
) -> tuple[str | Sequence[str] | None, dict[str, Any]]:
    """Return the model and the options of a client under today's names.

    Raises:
        ConfigurationError: An option has no counterpart (the hint names what to write), or is given under both names.
    """
    own = dict(options)
    for name in _REPLACED.keys() & own.keys():
        raise ConfigurationError(f"there is no option {name!r}", hint=_REPLACED[name])
    model = _moved(own, "model_names", model)
    if isinstance(own.get("cache"), str) and own["cache"] in get_args(PromptCache):
        raise ConfigurationError(
            f"cache={own['cache']!r} is an option of each call: the provider's cache",
            hint="Pass it to process_prompts_sync or stream. The client's own is local_cache.",
        )
    for older, name in _RENAMED.items():
        value = _moved(own, older, own.get(name))
        if older in options:
            own[name] = value
    if own.get("progress") in _LATEST_PROGRESS:
        own["progress"] = _LATEST_PROGRESS[own["progress"]]
    if isinstance(own.get("model_weights"), str) and own.pop("model_weights") != "uniform":
        raise ConfigurationError(
            "model_weights is a list of numbers, one for each model", hint="Faster models get more calls in any case."
        )
    if own.pop("stateless_responses", None) is False:
        raise ConfigurationError(
            "every request has its whole conversation: stateless_responses=False is not supported",
            hint="background=True lets the provider store an answer until it is complete.",
        )
    if own.pop("use_responses_api", False) and model is not None:
        model = [_through_responses(name) for name in ([model] if isinstance(model, str) else model)]
    return model, own


def _moved(options: dict[str, Any], older: str, value: Any) -> Any:
    """Take an option out, and return its value, or `value` if it is not there."""
    if older not in options:
        return value
    if value is not None:
        raise ConfigurationError(f"{older} is another name of an option that is given, too", hint="Leave one out.")
    return options.pop(older)


def _through_responses(name: str) -> str:
    """Return the name of a model so that it is asked through the Responses API."""
    row = find_model(name)
    if find_provider(row.provider).adapter.endswith("-responses"):
        return name
    provider = f"{row.provider}-responses"
    try:
        find_provider(provider)
    except UnknownModelError:
        raise ConfigurationError(
            f"{row.provider} has no Responses API for use_responses_api=True", hint="Leave the option out."
        ) from None
    return f"{provider}:{row.name}"
