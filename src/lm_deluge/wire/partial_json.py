"""A push parser for JSON that arrives in pieces: the value so far after each of them, in linear time.

Why an own one: parsers on PyPI (2026-11) either pull their input, hide strings until they are complete, or parse
everything again for each piece. Nothing is repaired: text that cannot become JSON (RFC 8259) raises an error.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, TypeAlias

from lm_deluge.errors import InvalidJSONError, ProtocolError, ResponseLimitError
from lm_deluge.wire.json_tokens import (
    AFTER_NUMBER,
    DIGITS,
    LITERALS,
    NUMBER_RUN,
    NUMBER_START,
    SPACE,
    TextInput,
    bad_escape_at,
    parse_number,
    scan_string,
)

__all__ = ["CompletedValue", "IncrementalParser", "JSONPath"]

JSONPath: TypeAlias = tuple[str | int, ...]
"""Keys and indexes from the root to a value: `("lines", 0, "price")`. The root itself has the path `()`."""

CompletedValue: TypeAlias = tuple[JSONPath, Any]
"""A path, and the value there, which is complete."""

MAX_DEPTH = 200  # copy.deepcopy takes two frames a level, and Python allows 1,000; answers are a few levels deep
MAX_BYTES = 16 * 2**20  # as for an event of a stream
MAX_DIGITS = 4300  # Python's own limit, as converting an integer takes quadratic time (CVE-2020-10735)

_State: TypeAlias = Callable[["IncrementalParser", str, int], int]
"""Reads text from a position, at least one character; returns the position after what it has read."""


class IncrementalParser:
    r"""Parses JSON that arrives in pieces of bytes or str, all of the same type, however they are divided.

    `value` is current after each `feed`. Its dicts and lists are the parser's own and change in place while they are
    open: copy what must not change, and never modify them. A string is visible from its opening quote on and grows; a
    number is visible after the character that follows it, `true`, `false` and `null` after their last letter; a key
    is visible together with its value. Time and memory are linear in the size of the text.

    Of two values with the same key the last one wins, as with `json.loads`: it replaces the first when it becomes
    visible, and both are reported as completed. A complete value never changes otherwise. Integers are ints of any
    size up to `max_digits`, other numbers floats as `json.loads` makes them. A lone surrogate (`\ud83d` without its
    low half) becomes U+FFFD. `NaN`, `Infinity` and a byte order mark are not JSON.

    Attributes:
        completed: The values that the last `feed` or `close` completed, in the order of their last characters, so an
            array comes after its items. It is also valid after an error: what was complete before the wrong byte.
        has_duplicate_keys: Whether an object had a second value with the same key.

    Example:
        >>> parser = IncrementalParser()
        >>> parser.feed('{"city": "Par'), parser.value
        ([], {'city': 'Par'})
        >>> parser.feed('is"'), parser.value
        ([(('city',), 'Paris')], {'city': 'Paris'})
    """

    __slots__ = (
        "_container",
        "_error",
        "_held",
        "_input",
        "_key",
        "_literal",
        "_max_depth",
        "_max_digits",
        "_path",
        "_pieces",
        "_root",
        "_stack",
        "_state",
        "_token",
        "completed",
        "has_duplicate_keys",
    )

    def __init__(self, *, max_depth: int = MAX_DEPTH, max_bytes: int = MAX_BYTES, max_digits: int = MAX_DIGITS) -> None:
        """Start with an empty text.

        Args:
            max_depth: Arrays and objects inside each other.
            max_bytes: Bytes of UTF-8 in the whole text.
            max_digits: Characters of a number.
        """
        self._max_depth = max_depth
        self._max_digits = max_digits
        self._input = TextInput(max_bytes)
        self._error: ProtocolError | None = None
        self._state: _State = IncrementalParser._at_value
        self._root: list[Any] = []  # the list that holds the root value
        self._container: Any = self._root  # the innermost open list or dict
        self._path: JSONPath | None = None  # of the container; None for the list of the root
        self._key: Any = 0  # of the current value in the container
        self._stack: list[tuple[Any, JSONPath | None, Any]] = []  # the containers around it
        self._token = ""  # the number so far; the letters that a literal still lacks
        self._literal: bool | None = None
        self._pieces: list[str] = []  # of an object's key
        self._held = ""  # an incomplete escape, at most eleven characters
        self.completed: list[CompletedValue] = []
        self.has_duplicate_keys = False

    @property
    def value(self) -> Any:
        """The value so far, None before anything of it is visible."""
        return self._root[0] if self._root else None

    @property
    def is_complete(self) -> bool:
        """Whether the value is complete; only white space may follow. A bare number is complete after `close` only."""
        return self._state is IncrementalParser._after_root

    @property
    def open_path(self) -> JSONPath | None:
        """Path of the innermost value that is started and not complete; None before the value and after it."""
        return self._here() if self._state in self._open_scalars else self._path

    @property
    def open_containers(self) -> list[tuple[Any, Any]]:
        """The open dicts and lists, the outermost first, each with the key of its value that is open or came last."""
        if self._path is None:
            return []
        return [*((container, key) for container, _, key in self._stack[1:]), (self._container, self._key)]

    @property
    def is_in_string(self) -> bool:
        """Whether the innermost open value is a string, which may grow."""
        return self._state is IncrementalParser._in_string

    def is_open(self, path: JSONPath) -> bool:
        """Whether the value at `path` is started and not complete."""
        current = self.open_path
        return current is not None and current[: len(path)] == path

    def completed_fields(self) -> list[tuple[str, Any]]:
        """Return the fields of the root object that the last `feed` completed."""
        return [(path[0], value) for path, value in self.completed if len(path) == 1 and isinstance(path[0], str)]

    def completed_items(self, path: JSONPath = ()) -> list[tuple[int, Any]]:
        """Return the items of the array at `path` that the last `feed` completed, each with its index."""
        return [
            (at[-1], value)
            for at, value in self.completed
            if len(at) == len(path) + 1 and isinstance(at[-1], int) and at[:-1] == path
        ]

    def feed(self, piece: bytes | str) -> list[CompletedValue]:
        """Parse the next piece; return the values that it completes, which are `completed` as well.

        Raises:
            InvalidJSONError: The text is not JSON; `offset` is the first wrong byte. Each later call raises it again.
            ResponseLimitError: The text exceeds one of the limits.
        """
        completed: list[CompletedValue] = []
        self.completed = completed
        if self._error is not None:
            raise self._error.again()
        text = self._input.take(piece)
        if self._held:
            text = self._held + text
            self._held = ""
        at, end = 0, len(text)
        while at < end:  # a state is a plain function, as a bound method on its own object would be a cycle
            at = self._state(self, text, at)
        if self._input.error is not None:
            self._error = self._input.error
            raise self._error
        return completed

    def close(self) -> list[CompletedValue]:
        """End the text; return the root value if it is a number, which only the end completes.

        Raises:
            InvalidJSONError: The text ends before the value is complete.
        """
        self.completed = []
        if self._error is not None:
            raise self._error.again()
        if self._state is IncrementalParser._in_number and self._path is None and self._token[-1] in DIGITS:
            self._complete_number("", 0)
        if not self.is_complete or self._input.is_open:
            size = self._input.size
            self._error = InvalidJSONError(f"the JSON ends at byte {size}, inside its value", offset=size)
            raise self._error
        return self.completed

    def _fail(self, text: str, at: int, expected: str) -> InvalidJSONError:
        offset = self._input.size - len(text[at:].encode())
        self._error = InvalidJSONError(f"invalid JSON at byte {offset}: expected {expected}", offset=offset)
        return self._error

    def _exceed(self, limit: str, name: str) -> ResponseLimitError:
        hint = f"Raise {name} if such answers are expected."
        self._error = ResponseLimitError(f"the JSON has {limit}", reason="limit", hint=hint)
        return self._error

    # Values: where they stand, when they are complete.

    def _here(self) -> JSONPath:
        return () if self._path is None else (*self._path, self._key)

    def _place(self, value: Any) -> None:
        if type(self._container) is list:
            self._container.append(value)
        else:
            if self._key in self._container:
                self.has_duplicate_keys = True
            self._container[self._key] = value

    def _complete(self, value: Any) -> None:
        self.completed.append((self._here(), value))
        self._go_on()

    def _go_on(self) -> None:
        self._state = IncrementalParser._after_root if self._path is None else IncrementalParser._after_value

    def _open(self, container: list[Any] | dict[str, Any]) -> None:
        if len(self._stack) == self._max_depth:
            raise self._exceed(f"more than {self._max_depth} arrays and objects inside each other", "max_depth")
        self._place(container)
        path = self._here()
        self._stack.append((self._container, self._path, self._key))
        self._container, self._path = container, path

    def _close_container(self) -> None:
        path, value = self._path, self._container
        self._container, self._path, self._key = self._stack.pop()
        self.completed.append((path or (), value))
        self._go_on()

    # States between values.

    def _at_value(self, text: str, at: int) -> int:
        at = SPACE(text, at).end()
        if at == len(text):
            return at
        begin = self._begin.get(text[at])
        if begin is None:
            raise self._fail(text, at, "a value")
        if type(self._container) is list:
            self._key = len(self._container)
        return begin(self, text, at)

    def _at_first_item(self, text: str, at: int) -> int:
        at = SPACE(text, at).end()
        if at == len(text):
            return at
        if text[at] == "]":
            self._close_container()
            return at + 1
        self._state = IncrementalParser._at_value
        return at

    def _at_first_key(self, text: str, at: int) -> int:
        at = SPACE(text, at).end()
        if at == len(text):
            return at
        if text[at] == "}":
            self._close_container()
            return at + 1
        self._state = IncrementalParser._at_key
        return at

    def _at_key(self, text: str, at: int) -> int:
        at = SPACE(text, at).end()
        if at == len(text):
            return at
        if text[at] != '"':
            raise self._fail(text, at, "a key in double quotes")
        self._state = IncrementalParser._in_key
        return at + 1

    def _at_colon(self, text: str, at: int) -> int:
        at = SPACE(text, at).end()
        if at == len(text):
            return at
        if text[at] != ":":
            raise self._fail(text, at, "a colon")
        self._state = IncrementalParser._at_value
        return at + 1

    def _after_value(self, text: str, at: int) -> int:
        at = SPACE(text, at).end()
        if at == len(text):
            return at
        is_list = type(self._container) is list
        character = text[at]
        if character == ",":
            self._state = IncrementalParser._at_value if is_list else IncrementalParser._at_key
        elif character == ("]" if is_list else "}"):
            self._close_container()
        else:
            raise self._fail(text, at, "a comma or the end of the " + ("array" if is_list else "object"))
        return at + 1

    def _after_root(self, text: str, at: int) -> int:
        at = SPACE(text, at).end()
        if at < len(text):
            raise self._fail(text, at, "nothing after the value")
        return at

    # Beginnings of values.

    def _begin_string(self, text: str, at: int) -> int:
        self._place("")
        self._state = IncrementalParser._in_string
        return at + 1

    def _begin_array(self, text: str, at: int) -> int:
        self._open([])
        self._state = IncrementalParser._at_first_item
        return at + 1

    def _begin_object(self, text: str, at: int) -> int:
        self._open({})
        self._state = IncrementalParser._at_first_key
        return at + 1

    def _begin_number(self, text: str, at: int) -> int:
        self._token = ""
        self._state = IncrementalParser._in_number
        return self._in_number(text, at)

    def _begin_literal(self, text: str, at: int) -> int:
        self._token, self._literal = LITERALS[text[at]]
        self._state = IncrementalParser._in_literal
        return self._in_literal(text, at)

    # States inside values.

    def _in_string(self, text: str, at: int) -> int:
        piece, at, is_closed = self._scan(text, at)
        container, key = self._container, self._key
        whole = container[key]
        if piece:
            # CPython appends in place, in amortized constant time, while the local name is the only reference.
            container[key] = None
            whole += piece
            container[key] = whole
        if is_closed:
            self._complete(whole)
        return at

    def _in_key(self, text: str, at: int) -> int:
        piece, at, is_closed = self._scan(text, at)
        self._pieces.append(piece)
        if is_closed:
            self._key = "".join(self._pieces)
            self._pieces.clear()
            self._state = IncrementalParser._at_colon
        return at

    def _scan(self, text: str, at: int) -> tuple[str, int, bool]:
        """Return characters of a string from `at` on, the position after them, and whether the string ends there."""
        piece, stop, ending = scan_string(text, at)
        if ending == "escape":
            self._held = text[stop:]
            return piece, len(text), False
        if ending == "error" and stop == at:  # else the text before the wrong character counts first
            if text[at] == "\\":
                raise self._fail(text, bad_escape_at(text, at), "an escape of JSON")
            raise self._fail(text, at, "an escape in place of a control character")
        return piece, stop, ending == "quote"

    def _in_number(self, text: str, at: int) -> int:
        stop = NUMBER_RUN(text, at).end()
        self._token = token = self._token + text[at:stop]
        valid = NUMBER_START(token, 0).end()
        if valid > self._max_digits:
            raise self._exceed(f"a number of more than {self._max_digits} characters", "max_digits")
        if valid < len(token):
            raise self._fail(text, stop - len(token) + valid, "another character in a number")
        if stop < len(text):
            self._complete_number(text, stop)
        return stop

    def _complete_number(self, text: str, stop: int) -> None:
        if text and (self._token[-1] not in DIGITS or text[stop] not in AFTER_NUMBER):
            raise self._fail(text, stop, "the rest or the end of a number")
        try:
            value = parse_number(self._token)
        except ValueError:
            raise self._exceed("an integer larger than sys.get_int_max_str_digits() allows", "it") from None
        self._place(value)
        self._complete(value)

    def _in_literal(self, text: str, at: int) -> int:
        for letter in self._token:
            if at == len(text):
                return at
            if text[at] != letter:
                raise self._fail(text, at, "true, false or null")
            self._token = self._token[1:]
            at += 1
        self._place(self._literal)
        self._complete(self._literal)
        return at

    # Tables of the states, below the methods that they name.

    _begin: ClassVar[dict[str, _State]] = {
        '"': _begin_string,
        "[": _begin_array,
        "{": _begin_object,
        **dict.fromkeys("-0123456789", _begin_number),
        **dict.fromkeys("tfn", _begin_literal),
    }
    _open_scalars: ClassVar[frozenset[_State]] = frozenset((_in_string, _in_number, _in_literal))
