"""Which calls request their answer as one plain document in place of a stream. Pure.

A plain answer costs a fraction of the CPU time of a stream, but nothing of it arrives before its end: whatever takes
longer than a timeout, or than a proxy keeps a silent connection, is lost. `collect="auto"` requests it only where the
answer is expected well within that time.
"""

from __future__ import annotations

import math
from collections import deque

from lm_deluge.adapters.adapter import Call
from lm_deluge.config import Collect, Timeouts
from lm_deluge.errors import APIError, DelugeError, StreamInterruptedError, TimeoutError
from lm_deluge.prompt.tool import ProviderTool

__all__ = ["PlainAnswers"]

# Proxies close connections without traffic: after 60 s those of nginx (`proxy_read_timeout`) and of AWS's load
# balancers (https://docs.aws.amazon.com/elasticloadbalancing/latest/application/edit-load-balancer-attributes.html).
_LONGEST_SILENCE_S = 60.0
_MARGIN = 1.5  # the time limit by the expected time, at least: answers later in a batch may take longer. A trade-off
_TOKENS_PER_S = 20.0  # of a slow model or a busy host; most generate 50 to 200 tokens a second
_TIMES_KEPT, _TIMES_NEEDED = 200, 20  # of recent answers: so many show the slow ones, and so few are soon known
_GATEWAY_TIMEOUTS = (408, 504, 524)  # statuses of a proxy that did not wait for the answer; 524 is Cloudflare's


class PlainAnswers:
    """Decides for the calls with the same options to one model; `note` and `note_failure` teach it.

    Args:
        call: One of the calls; its conversation is not used.
        timeouts: Their timeouts, with `first_token` as a number or None.
    """

    def __init__(self, call: Call, timeouts: Timeouts) -> None:
        quirks, limit = call.provider.quirks, call.params.max_new_tokens or call.model.max_output_tokens
        reasons = call.model.capabilities.reasons(call.params.reasoning_effort)
        can_think = reasons or (reasons is None and bool(call.model.capabilities.reasoning))
        self._is_possible = (
            not call.background
            and (quirks.plain_while_reasoning or reasons is False)
            and (quirks.max_plain_tokens is None or (limit or math.inf) <= quirks.max_plain_tokens)
        )
        # The length of what a model thinks, and of the work of a provider's tools, cannot be predicted.
        self._is_predictable = not (can_think or any(isinstance(tool, ProviderTool) for tool in call.tools))
        limits = (timeouts.first_token, timeouts.total, _LONGEST_SILENCE_S)
        self._longest_s = min(each for each in limits if isinstance(each, int | float)) / _MARGIN
        self._longest_by_tokens_s = (limit or math.inf) / _TOKENS_PER_S
        self._times: deque[float] = deque(maxlen=_TIMES_KEPT)

    def are_requested(self, collect: Collect) -> bool:
        """Whether the next answer is requested as a plain document."""
        if collect == "stream" or not self._is_possible:
            return False
        return collect == "plain" or (self._is_predictable and self._expected_s() <= self._longest_s)

    def _expected_s(self) -> float:
        """Return how long an answer takes at most; infinite if that is unknown."""
        if len(self._times) < _TIMES_NEEDED and math.inf not in self._times:
            return self._longest_by_tokens_s
        return max(self._times)

    def note(self, seconds: float) -> None:
        """Note how long a complete answer took, streamed or plain."""
        self._times.append(seconds)

    def note_failure(self, error: DelugeError) -> None:
        """Note why a request for a plain answer failed: after a silence that was too long, streams follow."""
        is_gateway = isinstance(error, APIError) and error.status_code in _GATEWAY_TIMEOUTS
        if is_gateway or isinstance(error, TimeoutError | StreamInterruptedError):
            self._times.append(math.inf)
