"""Whether an answer is what the call asked for: only such answers are kept. Pure."""

from __future__ import annotations

import msgspec

from lm_deluge.adapters.adapter import Call
from lm_deluge.response import APIResponse
from lm_deluge.schemas.strict_form import without_absent
from lm_deluge.schemas.structure import fits_schema

__all__ = ["is_accepted"]


def is_accepted(response: APIResponse, call: Call) -> bool:
    """Whether an answer has the form that the call asked for: JSON, by its schema. Tool calls need no such text."""
    if response.tool_calls or (call.output is None and not call.params.json_mode):
        return True
    try:
        value = msgspec.json.decode(response.completion)
    except (msgspec.DecodeError, RecursionError):
        return False
    if call.output is None:
        return isinstance(value, dict)
    return fits_schema(without_absent(value, call.output, call.output), call.output)
