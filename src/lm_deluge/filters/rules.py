"""The filters that users name: what is searched in an answer, and what follows a match."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any, ClassVar, Literal, TypeAlias

from lm_deluge.errors import ConfigurationError
from lm_deluge.filters.patterns import LONGEST_MATCH, Pattern, is_literal

__all__ = ["Channel", "Filter", "Guard", "RaiseAt", "ReasoningTags", "Redact", "StopAt"]

Channel: TypeAlias = Literal["text", "reasoning", "arguments"]
"""`text`: the answer, refusals and transcripts of audio. `arguments`: those of tool calls."""


class _Scoped:
    """A filter with the channels that it covers."""

    def __init__(self, *, reasoning: bool, arguments: bool) -> None:
        self.reasoning = reasoning
        self.arguments = arguments

    def covers(self, channel: Channel) -> bool:
        """Whether the filter looks at a channel."""
        return channel == "text" or (self.reasoning if channel == "reasoning" else self.arguments)


class _Searching(_Scoped):
    """A filter that searches for one text or pattern.

    Attributes:
        literal: The text; None for a pattern.
        pattern: The pattern; None for a text.
    """

    def __init__(
        self,
        pattern: str | re.Pattern[str],
        *,
        literal: bool = False,
        ignore_case: bool = False,
        max_length: int | None = None,
        reasoning: bool = True,
        arguments: bool = False,
    ) -> None:
        super().__init__(reasoning=reasoning, arguments=arguments)
        source, flags = (pattern.pattern, pattern.flags) if isinstance(pattern, re.Pattern) else (pattern, 0)
        name = type(self).__name__
        if not isinstance(source, str):
            raise ConfigurationError(f"{name} needs a pattern as text, not {type(source).__name__}")
        if not source:
            raise ConfigurationError(f"the pattern of {name} is empty")
        if literal and isinstance(pattern, re.Pattern):
            raise ConfigurationError("a compiled pattern is no literal", hint="Leave out literal=True.")
        flags |= re.IGNORECASE if ignore_case else 0
        is_text = literal or (is_literal(source) and not flags & re.VERBOSE)
        if is_text and len(source) > LONGEST_MATCH:
            raise ConfigurationError(f"the text of {name} has more than {LONGEST_MATCH:,} characters")
        self.literal: str | None = source if is_text and not flags & re.IGNORECASE else None
        self.pattern: Pattern | None = None
        if self.literal is None:
            self.pattern = Pattern(re.escape(source) if is_text else source, flags, max_length)
        self._shape = (source, int(flags), is_text, max_length, reasoning, arguments)

    def key(self) -> tuple[Any, ...]:
        """Return plain values that are equal for equal filters only."""
        return (type(self).__name__, *self._shape)


class StopAt(_Scoped):
    """Ends the answer before the first of some texts, at any provider. The rest is not generated.

    The finish reason is `stop`, and `finish_details` names the text. Unlike `SamplingParams.stop` nothing is sent to
    the provider, so it needs no support and can be of any number and length; the connection is closed at the match.

    Args:
        stops: The texts.
        reasoning: Whether they also end the answer while the model reasons.
        arguments: Whether they also end it in the arguments of a tool call.

    Raises:
        ConfigurationError: There is no text, or one is empty.

    Example:
        >>> response = await client.stream("Count to ten", filters=[StopAt("five", "FIVE")])
    """

    def __init__(self, *stops: str, reasoning: bool = False, arguments: bool = False) -> None:
        super().__init__(reasoning=reasoning, arguments=arguments)
        if not stops or not all(isinstance(stop, str) and 0 < len(stop) <= LONGEST_MATCH for stop in stops):
            raise ConfigurationError(
                f"StopAt needs texts of 1 to {LONGEST_MATCH:,} characters", hint='Write StopAt("END"), for example.'
            )
        self.stops = stops

    def __repr__(self) -> str:
        return f"StopAt({', '.join(map(repr, self.stops))})"

    def key(self) -> tuple[Any, ...]:
        """Return plain values that are equal for equal filters only."""
        return ("StopAt", self.stops, self.reasoning, self.arguments)


class Redact(_Searching):
    """Replaces every match of a text or pattern.

    Args:
        pattern: A regular expression, or plain text.
        replacement: What takes the place of each match, as it stands: it has no references to groups.
        literal: Whether `pattern` is plain text although it looks like a regular expression.
        ignore_case: Whether upper and lower case are the same.
        max_length: Characters of a match at most, up to 10,000. A pattern without a longest match must have it. Of a
            longer match the first `max_length` characters are replaced, and the characters that go on with it are
            left out.
        reasoning: Whether the reasoning is searched as well.
        arguments: Whether the arguments of tool calls are searched as well.

    Raises:
        ConfigurationError: The pattern is no regular expression, can match an empty text, has no longest match, or
            uses what cannot be matched in pieces (fuzzy matching, for example).
        MissingExtraError: It is not plain text, and the package `regex` is not installed.

    Example:
        >>> key = Redact(r"sk-[A-Za-z0-9]{20,}", "[key]", max_length=200)
        >>> response = await client.stream("Invent an API key", filters=[key])
    """

    def __init__(
        self,
        pattern: str | re.Pattern[str],
        replacement: str = "[redacted]",
        *,
        literal: bool = False,
        ignore_case: bool = False,
        max_length: int | None = None,
        reasoning: bool = True,
        arguments: bool = False,
    ) -> None:
        super().__init__(
            pattern,
            literal=literal,
            ignore_case=ignore_case,
            max_length=max_length,
            reasoning=reasoning,
            arguments=arguments,
        )
        if not isinstance(replacement, str):
            raise ConfigurationError(f"the replacement must be text, not {type(replacement).__name__}")
        self.replacement = replacement

    def key(self) -> tuple[Any, ...]:
        """Return plain values that are equal for equal filters only."""
        return (*super().key(), self.replacement)


class RaiseAt(_Searching):
    """Ends the call with a `FilterError` at the first match of a text or pattern.

    `error.partial` has the answer before the match.

    Args:
        pattern: A regular expression, or plain text.
        literal: Whether `pattern` is plain text although it looks like a regular expression.
        ignore_case: Whether upper and lower case are the same.
        max_length: Characters of a match at most; see `Redact`.
        reasoning: Whether the reasoning is searched as well.
        arguments: Whether the arguments of tool calls are searched as well.

    Raises:
        ConfigurationError: As for `Redact`.
        MissingExtraError: As for `Redact`.

    Example:
        >>> await client.stream("Write a shell script", filters=[RaiseAt("rm -rf /", literal=True, arguments=True)])
    """


class ReasoningTags:
    """Turns the text between two tags into reasoning, and leaves out the tags. For models that write them as text.

    The tags may occur anywhere in the answer, and any number of times. Reasoning without a closing tag goes on to the
    end of the text.

    Args:
        opening: The tag before the reasoning.
        closing: The tag after it.

    Raises:
        ConfigurationError: A tag is empty, or both are the same.

    Example:
        >>> response = await client.stream("Think aloud", filters=[ReasoningTags("<scratchpad>", "</scratchpad>")])
        >>> response.thinking
    """

    reasoning: ClassVar[bool] = False

    def __init__(self, opening: str = "<think>", closing: str = "</think>") -> None:
        tags = (opening, closing)
        if not all(isinstance(tag, str) and 0 < len(tag) <= LONGEST_MATCH for tag in tags) or opening == closing:
            raise ConfigurationError("ReasoningTags needs two different tags, none of them empty")
        self.opening = opening
        self.closing = closing

    def key(self) -> tuple[Any, ...]:
        """Return plain values that are equal for equal filters only."""
        return ("ReasoningTags", self.opening, self.closing)


class Guard(_Scoped):
    """Shows a function of yours the end of the answer before it is delivered; the function can stop the stream.

    The function is called with text, once at most for each read from the connection and each channel, after all other
    filters. What it returns decides:

    - None or True: the text is delivered.
    - False: the answer ends before the text of this read, with the finish reason `content_filter`.
    - Text: the same, and this text is the end of the answer.
    - An exception, or anything else: the call ends with a `FilterError`; `error.partial` has the answer before it.

    The function runs in the event loop: it must be fast, and not async. Calls with a guard bypass the local cache.

    Args:
        check: The function.
        window: Number of characters that it gets: the new text of this read and, as far as there is room, the text
            before it. A read with more text than that is shown as a whole.
        reasoning: Whether it is called for reasoning as well.
        arguments: Whether it is called for arguments of tool calls as well.

    Raises:
        ConfigurationError: `check` is no function or async, or `window` is not positive.

    Example:
        >>> def is_polite(text: str) -> bool:
        ...     return "damn" not in text.lower()
        >>> response = await client.stream("Swear", filters=[Guard(is_polite, window=20)])
    """

    def __init__(
        self,
        check: Callable[[str], bool | str | None],
        window: int = 400,
        *,
        reasoning: bool = True,
        arguments: bool = False,
    ) -> None:
        super().__init__(reasoning=reasoning, arguments=arguments)
        if not callable(check) or inspect.iscoroutinefunction(check):
            raise ConfigurationError(
                "Guard needs a function that is not async", hint="It is called while the answer is read."
            )
        if isinstance(window, bool) or not isinstance(window, int) or window < 1:
            raise ConfigurationError("the window of a Guard is a number of characters, 1 at least")
        self.check = check
        self.window = window

    def key(self) -> tuple[Any, ...]:
        """Return plain values that are equal for equal guards, and for some others: functions cannot be compared."""
        return ("Guard", getattr(self.check, "__qualname__", type(self.check).__name__), self.window)


Filter: TypeAlias = StopAt | Redact | RaiseAt | ReasoningTags | Guard
