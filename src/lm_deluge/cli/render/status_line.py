"""The status line of a running stream, and the summary after its end."""

from __future__ import annotations

import math

from lm_deluge import errors
from lm_deluge.cli.render.escape import visible_line
from lm_deluge.cli.render.terminal import SEPARATOR
from lm_deluge.dispatch.attempts.attempt import PendingRetry
from lm_deluge.errors import DelugeError
from lm_deluge.response import APIResponse

__all__ = ["describe_retry", "notes_of", "running_status", "summary", "totals"]

_CENT = 0.01  # dollars; below a tenth of a cent, costs need six decimal places
_MINUTE = 60.0  # seconds


def _seconds(seconds: float) -> str:
    if seconds < 1:
        return f"{seconds:.2f} s"
    if seconds < _MINUTE:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(int(seconds), int(_MINUTE))
    return f"{minutes} min {rest:02d} s"


def _dollars(cost: float) -> str:
    if cost == 0:
        return "$0"
    return f"${cost:.4f}" if cost >= _CENT / 10 else f"${cost:.6f}"


def running_status(response: APIResponse, *, activity: str) -> str:
    """Return the status line of a running stream."""
    stats = response.stats
    items = [visible_line(response.model_internal), activity]
    if stats is not None and stats.time_to_first_token is not None:
        mark = "~" if response.usage is None or response.usage.estimated else ""
        items.append(f"{mark}{stats.output_tokens} tokens")
        if stats.tokens_per_second is not None:
            items.append(f"{stats.tokens_per_second:.0f} tokens/s")
    if stats is not None and stats.duration is not None:
        items.append(f"{stats.duration:.1f} s" if stats.duration < _MINUTE else _seconds(stats.duration))
    if response.cost and stats is not None and stats.output_tokens:
        items.append(f"~{_dollars(response.cost)}")
    return SEPARATOR.join(item for item in items if item)


_CAUSES: dict[type[DelugeError], str] = {
    errors.RateLimitError: "rate limit",
    errors.OverloadedError: "the provider is overloaded",
    errors.ServerError: "the provider failed",
    errors.ConnectError: "no connection",
    errors.TimeoutError: "timeout",
    errors.StreamInterruptedError: "the connection broke",
}


def describe_retry(retry: PendingRetry, *, now: float) -> tuple[str, str]:
    """Return why and when a call is attempted again, in short, and the message of the error.

    Args:
        retry: The attempt that is waited for.
        now: The event loop's time.
    """
    cause = next((text for kind, text in _CAUSES.items() if isinstance(retry.error, kind)), "the attempt failed")
    status = getattr(retry.error, "status_code", None)
    seconds = math.ceil(retry.due_at - now)
    when = (
        f"in {_seconds(float(seconds)) if seconds >= _MINUTE else f'{seconds} s'}"
        if seconds > 0
        else "when limits allow"
    )
    number = f"attempt {retry.attempt} of {retry.max_attempts} {when}"
    return f"{cause}{f' ({status})' if status else ''}, {number}", visible_line(retry.error.message)


def summary(response: APIResponse) -> str:
    """Return the summary of a complete answer."""
    items = [visible_line(response.model_external or response.model_internal)]
    usage, stats = response.usage, response.stats
    if usage is not None:
        mark = "~" if usage.estimated else ""
        items.append(f"{mark}{usage.input_tokens} tokens in, {mark}{usage.output_tokens} out")
    if response.cost is not None:
        items.append(_dollars(response.cost))
    if stats is not None and stats.time_to_first_token is not None:
        items.append(f"first token {_seconds(stats.time_to_first_token)}")
    if stats is not None and stats.tokens_per_second is not None:
        items.append(f"{stats.tokens_per_second:.0f} tokens/s")
    if stats is not None and stats.duration is not None:
        items.append(_seconds(stats.duration))
    if stats is not None and stats.attempts > 1:
        items.append(f"{stats.attempts} attempts")
    return SEPARATOR.join(items)


def totals(input_tokens: int, output_tokens: int, cost: float | None, *, is_estimated: bool) -> str:
    """Return the tokens and cost of several answers."""
    mark = "~" if is_estimated else ""
    items = [f"{mark}{input_tokens} tokens in, {mark}{output_tokens} out"]
    if cost is not None:
        items.append(_dollars(cost))
    return SEPARATOR.join(items)


_REASONS = {
    "length": "The answer was cut off: it reached the limit of --max-tokens or of the model.",
    "content_filter": "The provider's content filter cut the answer off.",
    "refusal": "The model refused to answer.",
    "pause": "The provider paused the answer; it is not complete.",
    "error": "The provider ended the answer because of an internal error.",
}
_WARNINGS = {
    "wrong_type": "The provider sent values of unexpected types, which are left out of the answer.",
    "other_model": "A different model answered than the requested model.",
    "temperature_ignored": "The model ignores the temperature.",
    "top_p_ignored": "The model ignores top_p.",
    "buffered_upstream": "A proxy buffered the answer and delivered it all at once.",
}


def notes_of(response: APIResponse, *, is_quiet: bool = False) -> list[str]:
    """Return notices about an answer: an incomplete end, warnings, tool calls and sources.

    Args:
        response: The answer.
        is_quiet: Return only the notice that the answer is not complete.
    """
    notes = [_REASONS[response.finish_reason]] if response.finish_reason in _REASONS else []
    if is_quiet:
        return notes
    details = response.finish_details or {}
    notes += [
        f"The provider's {name}: {visible_line(details[name])}"
        for name in ("category", "explanation")
        if isinstance(details.get(name), str)
    ]
    notes += [_WARNINGS[warning] for warning in response.warnings if warning in _WARNINGS]
    for call in response.tool_calls:
        notes.append(f"The model calls the tool {visible_line(call.name)}({visible_line(call.arguments_text)}).")
    for source in response.citations:
        notes.append(f"Source: {visible_line(' '.join(word for word in (source.title, source.url) if word))}")
    return notes
