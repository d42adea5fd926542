"""Mutations that know the structure of a body: values, fields, frames, cuts and bytes."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Iterator
from typing import Any

from fuzz.bodies import Body, Frame, bodies

# Values as JSON text, because Python's encoder cannot write some of them.
VALUES = (
    *("null", "true", "false", "0", "-1", "1", "7", "1.5", "-0.0", "-17", "1e2", "1e308", "-1e308", "1e999", "-1e-400"),
    *(str(2**53), str(2**53 + 1), str(2**63), str(2**64), "-" + "9" * 30, "9" * 401, "-" + "9" * 401, "9" * 5_000),
    *("NaN", "Infinity", "-Infinity", '""', '"x"', '"12"', '"-3"', '"1e400"', '"' + "9" * 401 + '"', '"NaN"', '"null"'),
    *('"\\ud800"', '"a\\udc00b"', '"\\ud83d\\ude42"', '"\\u0000"', '"' + "a" * 2_000 + '"', '"https://u:pw@h"'),
    *(
        "[]",
        "[null]",
        "[[]]",
        "[1]",
        '["a"]',
        "[{}]",
        '[{"type": "text"}]',
        "[" * 60 + "]" * 60,
        "[" * 3_000 + "]" * 3_000,
    ),
    *("{}", '{"a": null}', '{"type": null}', '{"": {}}', '{"text": 1}', '{"a": ' * 60 + "1" + "}" * 60),
)
_VALUE, _AGAIN = "\x01", "\x02"
Path = tuple[Any, ...]


def mutated(body: Body, dice: random.Random) -> bytes:
    """Return the bytes of a body after one to three mutations."""
    for _ in range(dice.choice((1, 1, 1, 2, 3))):
        body = dice.choice(_OF_FRAMES if not body.is_document and dice.random() < 0.35 else _OF_JSON)(body, dice)
    data = body.bytes
    return dice.choice(_OF_BYTES)(data, dice) if dice.random() < 0.2 else data


# JSON.


def paths(value: Any, path: Path = ()) -> Iterator[Path]:
    """Yield the path of each value."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from paths(inner, (*path, key))


def changed(value: Any, path: Path, change: Callable[[Any, Any], None]) -> Any:
    """Return a copy in which `change(container, key)` was applied to the value at a path that is not empty."""
    copy = json.loads(json.dumps(value))
    container = copy
    for key in path[:-1]:
        container = container[key]
    change(container, path[-1])
    return copy


def written(value: Any) -> bytes:
    """Return the JSON of a value in which strings may stand for JSON text, and keys be repeated."""
    text = json.dumps(value)
    text = re.sub(r'"\\u0001(\d+)"', lambda found: VALUES[int(found[1])], text)
    return text.replace("\\u0002", "").encode()


def _on_json(change: Callable[[Any, random.Random], Any]) -> Callable[[Body, random.Random], Body]:
    def mutate(body: Body, dice: random.Random) -> Body:
        if not body.frames:
            return body
        number = dice.randrange(len(body.frames))
        frame = body.frames[number]
        try:
            value = json.loads(frame.data)
            data = written(change(value, dice))
        except (ValueError, RecursionError):  # an end mark, or mutated before
            return body
        return body._replace(frames=(*body.frames[:number], frame._replace(data=data), *body.frames[number + 1 :]))

    return mutate


def _replace_value(value: Any, dice: random.Random) -> Any:
    path = dice.choice(list(paths(value)))
    new = f"{_VALUE}{dice.randrange(len(VALUES))}"
    return changed(value, path, lambda inside, key: inside.__setitem__(key, new)) if path else new


def _with_fields(value: Any) -> list[Path]:
    return [path for path in paths(value) if path and isinstance(path[-1], str)]


def _delete_field(value: Any, dice: random.Random) -> Any:
    found = _with_fields(value)
    return changed(value, dice.choice(found), lambda inside, key: inside.pop(key)) if found else value


def _repeat_field(value: Any, dice: random.Random) -> Any:
    new = f"{_VALUE}{dice.randrange(len(VALUES))}"
    found = _with_fields(value)
    return (
        changed(value, dice.choice(found), lambda inside, key: inside.update({key + _AGAIN: new})) if found else value
    )


def _swap_values(value: Any, dice: random.Random) -> Any:
    found = _with_fields(value)
    if not found:
        return value
    other = value
    for key in dice.choice(found):
        other = other[key]
    return changed(value, dice.choice(found), lambda inside, key: inside.__setitem__(key, other))


def _lone_surrogate(value: Any, dice: random.Random) -> Any:
    found = _with_fields(value)
    if not found:
        return value

    def change(inside: Any, key: Any) -> None:
        old = inside[key] if isinstance(inside[key], str) else ""
        place = dice.randint(0, len(old))
        inside[key] = old[:place] + dice.choice(["\ud800", "\udc00", "\udfff\ud800"]) + old[place:]

    return changed(value, dice.choice(found), change)


# Frames.


def _delete_frames(body: Body, dice: random.Random) -> Body:
    start = dice.randint(0, len(body.frames))
    end = start + dice.choice((1, 1, 2, 5))
    return body._replace(frames=body.frames[:start] + body.frames[end:])


def _repeat_frame(body: Body, dice: random.Random) -> Body:
    if not body.frames:
        return body
    place = dice.randint(0, len(body.frames))
    return body._replace(frames=(*body.frames[:place], dice.choice(body.frames), *body.frames[place:]))


def _swap_frames(body: Body, dice: random.Random) -> Body:
    frames = list(body.frames)
    if len(frames) > 1:
        one, two = dice.randrange(len(frames)), dice.randrange(len(frames))
        frames[one], frames[two] = frames[two], frames[one]
    return body._replace(frames=tuple(frames))


def _insert_frame(body: Body, dice: random.Random) -> Body:
    """Insert a frame of another body of the API, or one that is no frame of any API."""
    other = dice.choice([each for each in bodies(body.api) if not each.is_document])
    odd = [Frame(data) for data in (b"[DONE]", b"{}", b"[]", b"null", b'"x"', b"5", b"{", b" ", b'{"type": "new"}')]
    frame = dice.choice([*other.frames, dice.choice(odd)])
    place = dice.randint(0, len(body.frames))
    return body._replace(frames=(*body.frames[:place], frame, *body.frames[place:]))


# Bytes.


def _cut(data: bytes, dice: random.Random) -> bytes:
    return data[: dice.randint(0, len(data))]


def _cut_out(data: bytes, dice: random.Random) -> bytes:
    place = dice.randint(0, len(data))
    return data[:place] + data[place + dice.choice((1, 2, 9, 100)) :]


def _damage(data: bytes, dice: random.Random) -> bytes:
    place = dice.randint(0, len(data))
    return (
        data[:place]
        + dice.choice((b"\0", b"\xff", b"\r", b"\n", b"\n\n", b'"', b"{", b"}", b"\\", b"9"))
        + data[place:]
    )


_OF_JSON = (
    *[_on_json(_replace_value)] * 5,
    *map(_on_json, (_delete_field, _repeat_field, _swap_values, _lone_surrogate)),
)
_OF_FRAMES = (_delete_frames, _repeat_frame, _swap_frames, _insert_frame)
_OF_BYTES = (_cut, _cut_out, _damage)
