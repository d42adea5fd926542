"""What an agent loop has so far: its messages, the answer of each round, and the calls without a result. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from lm_deluge.prompt.conversation import Conversation
from lm_deluge.prompt.message import Message
from lm_deluge.prompt.partial_answer import closed_calls
from lm_deluge.prompt.parts import Part, ToolCallPart, ToolResultPart
from lm_deluge.response import APIResponse

__all__ = ["CallIds", "LoopHistory", "with_closed_calls"]


class LoopHistory:
    """The messages and answers of an agent loop.

    Args:
        prompt: The conversation that the loop starts with. Calls at its end that have no result are the first that run;
            calls that were followed by other messages are closed.

    Attributes:
        rounds: The answers that are complete.
        calls: The calls of the last answer, while not all of them have results.
    """

    def __init__(self, prompt: Conversation) -> None:
        self._messages, results = _split(prompt.messages)
        self.rounds: list[APIResponse] = []
        self.calls: tuple[ToolCallPart, ...] = ()
        self._results: dict[str, ToolResultPart] = {}
        if results is not None:
            self.calls = self._messages[-1].tool_calls
            self._results = {part.tool_call_id: part for part in results}

    @property
    def open_calls(self) -> tuple[ToolCallPart, ...]:
        """The calls that have no result yet, in order."""
        return tuple(call for call in self.calls if call.id not in self._results)

    def add_answer(self, answer: APIResponse) -> None:
        """Add an answer after which the loop goes on."""
        self.rounds.append(answer)
        if answer.content.parts:
            self._messages.append(answer.content)
        self.calls = answer.tool_calls

    def add_last_answer(self, answer: APIResponse) -> None:
        """Add the answer that ends the loop. Its calls are closed, or left out if it broke off."""
        self.rounds.append(answer)
        self._messages = _with_answer(self._messages, answer)

    def add_result(self, part: ToolResultPart) -> None:
        """Add the result of a call. It keeps its place among the calls, whenever it arrives."""
        self._results.setdefault(part.tool_call_id, part)

    def next_prompt(self) -> Conversation:
        """Return the prompt of the next round; the open calls are closed."""
        self._messages = self._closed()
        self.calls, self._results = (), {}
        return Conversation(self._messages)

    def conversation(self, unfinished: APIResponse | None = None, *, keeps_open: bool = False) -> Conversation:
        """Return all messages so far as a conversation that is valid for the next turn.

        Args:
            unfinished: The answer of a round that is not complete.
            keeps_open: Whether open calls stay open, so that a later loop runs them.
        """
        messages = self._closed(keeps_open=keeps_open)
        return Conversation(messages if unfinished is None else _with_answer(messages, unfinished))

    def _closed(self, *, keeps_open: bool = False) -> list[Message]:
        if not self.calls:
            return list(self._messages)
        results = [self._results[call.id] for call in self.calls if call.id in self._results]
        if not keeps_open:
            *before, answer = self._messages
            return [*before, *_closed_with(answer, self._results)]
        return [*self._messages, Message("tool", tuple(results))] if results else list(self._messages)


def with_closed_calls(conversation: Conversation) -> Conversation:
    """Return a conversation whose open calls are closed: the same if there are none."""
    closed = LoopHistory(conversation).next_prompt()
    return conversation if closed == conversation else closed


def _with_answer(messages: Iterable[Message], answer: APIResponse) -> list[Message]:
    is_whole = answer.error is None and answer.finish_reason not in (None, "error")
    return Conversation(messages).add_answer(answer, open_calls="close" if is_whole else None).messages


def _closed_with(answer: Message, results: dict[str, ToolResultPart]) -> Iterable[Message]:
    """Return an answer and the results of all its calls; a call without one was cancelled."""
    closed, cancelled = closed_calls(answer, is_partial=False)
    parts: tuple[Part, ...] = tuple(
        results.get(part.tool_call_id, part) for part in cancelled.parts if isinstance(part, ToolResultPart)
    )
    return closed, Message("tool", parts)


def _split(messages: Sequence[Message]) -> tuple[list[Message], list[ToolResultPart] | None]:
    """Return the messages up to the answer whose calls are open, and the results that some of them have.

    Without open calls at the end, return all messages and None. Calls that are open before other messages are closed.
    """
    start = next((at for at in reversed(range(len(messages))) if messages[at].tool_calls), None)
    if start is None:
        return list(messages), None
    end = start + 1
    while end < len(messages) and messages[end].role == "tool":
        end += 1
    results = [part for each in messages[start + 1 : end] for part in each.parts if isinstance(part, ToolResultPart)]
    named = {part.tool_call_id: part for part in results}
    if all(call.id in named for call in messages[start].tool_calls):
        return list(messages), None
    if end == len(messages):
        return list(messages[: start + 1]), results
    return [*messages[:start], *_closed_with(messages[start], named), *messages[end:]], None


class CallIds:
    """Gives the calls of a loop ids that are unique in it: hosts that send none, or count from 0, repeat them.

    Args:
        messages: The messages before; the ids of their calls are taken.
    """

    def __init__(self, messages: Iterable[Message]) -> None:
        self._taken = {call.id for message in messages for call in message.tool_calls}
        self._of_round: set[str] = set()

    def start_round(self) -> None:
        """Start a round: all calls before it keep their ids."""
        self._taken |= self._of_round
        self._of_round = set()

    def restart(self) -> None:
        """Start the round again: the calls of the attempt before are void."""
        self._of_round = set()

    def add(self, call_id: str) -> str:
        """Return the id of the next call of the round: its own, or one with a number if that is taken."""
        found, number = call_id, 2
        while found in self._taken or found in self._of_round:
            found, number = f"{call_id}_{number}", number + 1
        self._of_round.add(found)
        return found

    def rename(self, answer: APIResponse) -> APIResponse:
        """Return the answer of the round with the ids that its calls have in the loop."""
        self.restart()
        if not answer.tool_calls:
            return answer
        parts = [
            msgspec.structs.replace(part, id=self.add(part.id)) if isinstance(part, ToolCallPart) else part
            for part in answer.content.parts
        ]
        content = answer.content
        answer.content = Message(content.role, tuple(parts), content.name)
        return answer
