"""`TypedCall`: a call whose answer is an object. It validates while the answer arrives, and asks again if it may."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import msgspec

from lm_deluge.dispatch.attempts.attempt import PendingRetry
from lm_deluge.dispatch.attempts.call_stream import StreamCall
from lm_deluge.dispatch.cache.call import CachedCall
from lm_deluge.dispatch.call import CallSpec
from lm_deluge.dispatch.running_call import JudgedCall, RunningCall
from lm_deluge.dispatch.scheduling.runner import Runner
from lm_deluge.errors import DelugeError, OutputError
from lm_deluge.events import (
    Attempt,
    Event,
    FinishReason,
    ResponseFinished,
    ResponseStarted,
    RoundStarted,
    TextDelta,
    ToolCallStarted,
    UsageReported,
)
from lm_deluge.outputs.answer_type import AnswerType
from lm_deluge.outputs.reader import Field, OutputReader, Problem
from lm_deluge.response import APIResponse, OutputValue, StreamStats
from lm_deluge.schemas.problems import error_of
from lm_deluge.usage import Usage

__all__ = ["OutputRules", "TypedCall", "judged_response", "open_typed", "restored_response"]

FindRunner: TypeAlias = Callable[[], Runner]
OpenCall: TypeAlias = Callable[[CallSpec, FindRunner], RunningCall]

_UNASKED: tuple[FinishReason, ...] = ("refusal", "content_filter", "length")
"""The same prompt with the same limit ends in the same way, so the question is not sent again."""
_UNJUDGED: tuple[FinishReason | None, ...] = ("tool_calls", "pause", "error")
"""The answer goes on in a later turn, or is an error of its own."""
_AGAIN = "{error} Answer again with the complete and corrected JSON object, and with nothing else."


class OutputRules(msgspec.Struct, frozen=True, kw_only=True):
    """What happens to an answer that is not valid.

    Attributes:
        kind: The type of the answer.
        max_retries: How often the model is asked again, with the error.
        stops_early: Whether the first invalid value ends the stream.
        check_partial: Called with the object so far, as plain data, after each read that changed it. A `ValueError`
            that it raises makes the answer invalid.
    """

    kind: AnswerType
    max_retries: int = 0
    stops_early: bool = True
    check_partial: Callable[[Any], object] | None = None


class _Rejection(NamedTuple):
    """Why an answer is not valid, and its finish reason; None: it was stopped."""

    error: OutputError
    reason: FinishReason | None


def open_typed(rules: OutputRules, inner: OpenCall | None = None) -> OpenCall:
    """Return the `open_with` of calls with typed answers.

    Args:
        rules: The type, and what happens to invalid answers.
        inner: Makes the call that is judged; None: a single answer.
    """
    return partial(TypedCall, rules, inner)


class TypedCall:
    """A call whose answer is an object. It has one start and one finish, however often the model is asked.

    Args:
        rules: The type, and what happens to invalid answers.
        inner: Makes the call that is judged; None: a single answer.
        spec: The call.
        find_runner: Returns the runner that decides when each attempt is sent.

    Attributes:
        kind: The type of the answer.
        fields: The values that the events of the last `next_batch` completed: valid, and instances of their types.
        is_changed: Whether these events changed the object.
    """

    def __init__(self, rules: OutputRules, inner: OpenCall | None, spec: CallSpec, find_runner: FindRunner) -> None:
        self.kind = rules.kind
        self.fields: list[Field] = []
        self.is_changed = False
        self._rules = rules
        self._open_inner = inner or _open_single
        self._is_judged = spec.is_judged
        self._spec = msgspec.structs.replace(spec, open_with=None, needs_events=True, is_judged=True)
        self._find_runner = find_runner
        self._call = self._open_inner(self._spec, find_runner)
        self._reader = self._new_reader()
        self._has_calls = False  # the answer so far ends with tool calls
        self._is_started = False
        self._is_finished = False  # the finish of an accepted answer was delivered
        self._is_aborted = False
        self._rejection: _Rejection | None = None  # of an answer whose events were delivered
        self._error: DelugeError | None = None
        self._asked = 0  # how often the model was asked again
        self._attempts = 0  # requests of the rejected answers
        self._usage: Usage | None = None  # and their usage
        self._cost: float | None = None

    def snapshot(self) -> Any:
        """Return the object so far as plain data, which does not change."""
        return self._reader.snapshot()

    async def next_batch(self) -> list[Event]:
        """Return the next events, at least one; empty at the end, and after an abort.

        Raises:
            OutputError: The answer is not valid, and the model is not asked again.
            DelugeError: The call failed; the `output` of its `partial` is the object so far.
        """
        self.fields, self.is_changed = [], False
        if self._error is not None:
            return []
        try:
            while True:
                if self._rejection is not None:
                    events = await self._ask_again(self._rejection)
                else:
                    events = await self._call.next_batch()
                if not events or self._is_aborted:
                    return []
                read = self._read(events)
                if read:
                    return read
        except DelugeError as error:
            raise self._failed(error) from error.__cause__

    def _read(self, events: list[Event]) -> list[Event]:
        """Return the events to deliver; an answer that ends invalid leaves its finish to the next one."""
        delivered: list[Event] = []
        texts: list[str] = []
        for event in events:
            if isinstance(event, TextDelta):
                texts.append(event.text)
            elif isinstance(event, ToolCallStarted | RoundStarted) or (
                isinstance(event, Attempt) and not event.goes_on
            ):
                texts.clear()
                self._start_object(has_calls=isinstance(event, ToolCallStarted))
            if isinstance(event, ResponseStarted):
                if self._is_started:
                    continue
                self._is_started = True
            elif isinstance(event, UsageReported) and self._usage is not None:
                delivered.append(UsageReported(self._usage + event.usage))
                continue
            elif isinstance(event, ResponseFinished):
                self._feed(texts)
                delivered += self._finish(event)
                return delivered
            delivered.append(event)
        self._feed(texts)
        if self._reader.is_ended and self._rules.stops_early:
            self._reject(None, "the answer was stopped at the first invalid value")
            self._call.abort()
        return delivered

    def _feed(self, texts: list[str]) -> None:
        if not texts:
            return
        self._has_calls = False
        changed = self._reader.feed("".join(texts))
        texts.clear()
        self.is_changed = self.is_changed or changed
        self.fields += self._reader.fields
        if changed and self._rules.check_partial is not None and not self._reader.problems:
            try:
                self._rules.check_partial(self._reader.snapshot())
            except ValueError as error:
                self._reader.problems.append(((), str(error)))

    def _start_object(self, *, has_calls: bool) -> None:
        """Forget the text so far: the answer starts again, or the text precedes a tool call."""
        self._reader = self._new_reader()
        self.fields, self.is_changed = [], False
        self._has_calls = has_calls

    def _new_reader(self) -> OutputReader:
        return OutputReader(self.kind, stops_early=self._rules.stops_early)

    def _finish(self, event: ResponseFinished) -> list[Event]:
        reason = event.finish_reason
        if reason in _UNJUDGED or self._has_calls:
            self._is_finished = True
            return [event]
        self._reader.close(reason)
        if self._reader.problems:
            self._reject(reason, None)
            return []
        self._is_finished = True
        warnings = (*event.warnings, *self._reader.warnings)
        return [msgspec.structs.replace(event, warnings=warnings)]

    def _reject(self, reason: FinishReason | None, hint: str | None) -> None:
        problems: list[Problem] = self._reader.problems
        error = error_of(OutputError, problems, self.kind.name)
        error.value = self._reader.snapshot()
        error.billed = "maybe" if reason is None else "yes"
        if reason == "length":
            error.hint = "Raise max_new_tokens."
        elif reason in _UNASKED:
            error.hint = "Change the prompt."
        elif hint is not None:
            error.hint = f"To save its cost, {hint}; with stop_on_invalid=False it goes on to its end."
        self._rejection = _Rejection(error, reason)

    # Asking again

    async def _ask_again(self, rejection: _Rejection) -> list[Event]:
        """Ask for another answer and return its first events; raise the error if the model is not asked again."""
        rejected, error = self._call, rejection.error
        is_cached = isinstance(rejected, CachedCall) and rejected.is_hit
        if not is_cached and (self._asked == self._rules.max_retries or rejection.reason in _UNASKED):
            await rejected.close()
            raise error
        response = rejected.response()
        await self._drop(rejected, response, error)
        if self._is_aborted:
            return []
        if not is_cached:
            self._asked += 1
        self._rejection = None
        self._start_object(has_calls=False)
        self._spec = self._spec_after(response, error, is_cached=is_cached)
        self._call = self._open_inner(self._spec, self._find_runner)
        events = await self._call.next_batch()
        if not events or self._is_aborted:
            self._call.abort()
            return []
        model = self._call.response().model_internal
        number = 1 + self._attempts
        again: list[Event] = [Attempt(number, type(error).__name__, error.message, 0.0, model)]
        return again + events

    async def _drop(self, rejected: RunningCall, response: APIResponse, error: OutputError) -> None:
        """Close a call whose answer is rejected; note its usage, and report it to the hooks of the call."""
        await rejected.close()
        if isinstance(rejected, JudgedCall):
            await rejected.judge(is_accepted=False)
        attempts = 0 if response.stats is None else response.stats.attempts
        if response.usage is not None and not response.local_cache_hit:
            self._usage = response.usage if self._usage is None else self._usage + response.usage
        if response.cost is not None:
            self._cost = response.cost + (self._cost or 0.0)
        if self._spec.on_attempt_failed is not None and attempts:
            failed = msgspec.structs.replace(response, error=error)
            await self._spec.on_attempt_failed(_reported_attempts(response), failed, False)
        self._attempts += attempts

    def _spec_after(self, response: APIResponse, error: OutputError, *, is_cached: bool) -> CallSpec:
        """Return the call for the next answer: the rejected one and the error are added to the conversation."""
        spec = self._spec
        if is_cached:  # an answer that an older version of the type accepted
            return msgspec.structs.replace(spec, reads_cache=False)
        so_far = getattr(response, "conversation", None)  # of several rounds, the last answer included
        if so_far is None:
            so_far = spec.conversation.copy().add_answer(response, open_calls="drop")
        conversation = so_far.copy().user(_AGAIN.format(error=f"Your answer is {_sentence(error)}"))
        attempts = _reported_attempts(response)
        return msgspec.structs.replace(
            spec,
            conversation=conversation,
            plans={},
            before_attempt=_numbered_from(attempts, spec.before_attempt),
            on_attempt_failed=_numbered_from(attempts, spec.on_attempt_failed),
        )

    def _failed(self, error: DelugeError) -> DelugeError:
        """Note the error that ends the call, with the object so far on its partial response."""
        self._error = error
        error.attempts = self.stats().attempts or error.attempts
        if isinstance(error, OutputError):
            partial = self._call.response()
            error.model, error.request_id = partial.model_internal, partial.request_id
            error.partial = self._completed(partial)
        elif error.partial is not None or self._is_started:
            error.partial = self._completed(error.partial or self._call.response())
        return error

    # Ending

    async def close(self) -> None:
        """End the call. An answer that was read to its end leaves its connection to the next request."""
        await self._call.close()
        if not self._is_judged:
            await self.judge(is_accepted=True)

    async def judge(self, *, is_accepted: bool) -> None:
        """Store the answer in the local cache if it is valid and accepted."""
        if isinstance(self._call, JudgedCall):
            await self._call.judge(is_accepted=is_accepted and self._is_finished and self._error is None)

    async def settle(self) -> None:
        """Wait, for seconds at most, until what an abort started has ended."""
        await self._call.settle()

    def abort(self) -> None:
        """End the call now; a pending `next_batch` returns []."""
        self._is_aborted = True
        self._call.abort()

    def abort_from_anywhere(self) -> None:
        """Abort from a finaliser, which may run in another thread or after the loop was closed."""
        self._is_aborted = True
        self._call.abort_from_anywhere()

    # Results

    @property
    def pending_retry(self) -> PendingRetry | None:
        """The next attempt while the call waits for it; else None."""
        return self._call.pending_retry

    def response(self) -> APIResponse:
        """Return the response so far, with the usage and the cost of all answers."""
        answer = self._completed(self._call.response())
        answer.error = self._error or answer.error
        return answer

    def _completed(self, answer: APIResponse) -> APIResponse:
        """Return the response of the last answer with the object, and what the answers before it have cost."""
        if self._usage is not None:
            answer.usage = self._usage if answer.usage is None else self._usage + answer.usage
        if self._cost is not None:
            answer.cost = self._cost + (answer.cost or 0.0)
        if answer.stats is not None:
            answer.stats = self._counted(answer.stats)
        own = [each for each in self._reader.warnings if each not in answer.warnings]
        answer.warnings += tuple(own)
        if not self._has_calls:
            answer.output_value = self._reader.output or _so_far(self._reader.snapshot())
        return answer

    def stats(self) -> StreamStats:
        """Return the timing of the last answer; `attempts` counts those of all answers."""
        return self._counted(self._call.stats())

    def _counted(self, stats: StreamStats) -> StreamStats:
        return msgspec.structs.replace(stats, attempts=stats.attempts + self._attempts) if self._attempts else stats


def judged_response(response: APIResponse, kind: AnswerType) -> APIResponse:
    """Return a complete response with its object as an instance of the type; `error` is set if it is not valid.

    For responses that were answered elsewhere: by the batch API of a provider, or in an earlier run with a journal.
    """
    if response.error is not None or response.tool_calls or response.finish_reason in _UNJUDGED:
        return response
    reader = OutputReader(kind)
    reader.feed(response.completion)
    reader.close(response.finish_reason)
    response.output_value = reader.output
    response.warnings += tuple(each for each in reader.warnings if each not in response.warnings)
    if reader.problems:
        response.output_value = _so_far(reader.snapshot())
        response.error = error_of(OutputError, reader.problems, kind.name)
        response.error.value = reader.snapshot()
        response.error.billed = "yes"
    return response


def restored_response(response: APIResponse, kind: AnswerType) -> APIResponse:
    """Return a response that was read from JSON, with its object as an instance of its type."""
    found = response.output_value
    is_typed = kind.is_schema or found is None or found.value is not found.data
    return response if is_typed or response.error is not None else judged_response(response, kind)


def _so_far(value: Any) -> OutputValue | None:
    return None if value is None else OutputValue(value, value)


def _reported_attempts(response: APIResponse) -> int:
    """Return how many requests the hooks of a call have seen; of an agent loop those of the first round."""
    first = response.rounds[0] if response.rounds else response
    return 0 if first.stats is None else first.stats.attempts


def _sentence(error: OutputError) -> str:
    return f"{error.message.rstrip('.')}."


def _numbered_from(attempts: int, hook: Callable[..., Any] | None) -> Callable[..., Any] | None:
    """Return a hook of a call that counts the attempts of the answers before it as well."""
    if hook is None or not attempts:
        return hook

    def numbered(number: int, *arguments: Any) -> Any:
        return hook(attempts + number, *arguments)

    return numbered


def _open_single(spec: CallSpec, find_runner: FindRunner) -> RunningCall:
    if spec.is_cached:
        return CachedCall(spec, find_runner, has_judge=True, reads=spec.reads_cache)
    return StreamCall(spec, find_runner)
