"""Errors: the tree of classes, their messages, copies and pickles."""

from __future__ import annotations

import builtins
import copy
import pickle
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from lm_deluge import errors
from lm_deluge.errors import (
    APIError,
    BadRequestError,
    ContentTypeError,
    DelugeError,
    ProtocolError,
    RateLimitError,
    StreamInterruptedError,
    TruncatedError,
    UnknownModelError,
    UnsupportedParameterError,
)
from lm_deluge.extras import install_hint
from lm_deluge.prompt.message import Message
from lm_deluge.response import APIResponse

CLASSES: list[type[DelugeError]] = [getattr(errors, name) for name in errors.__all__]


def drawn_tree() -> dict[str, str]:
    """Return {class: parent} from the tree in the module's docstring."""
    parents: dict[str, str] = {}
    open_at: list[tuple[int, str]] = []
    for line in (errors.__doc__ or "").splitlines():
        found = re.match(r"^    ([ |'-]*)([A-Z]\w+Error)\b", line)
        if not found:
            continue
        depth = len(found[1])
        open_at = [(at, name) for at, name in open_at if at < depth]
        parents[found[2]] = open_at[-1][1] if open_at else ""
        open_at.append((depth, found[2]))
    return parents


def test_the_tree_that_is_drawn_is_the_tree_that_is() -> None:
    actual = {each.__name__: each.__bases__[0].__name__ for each in CLASSES if each is not DelugeError}
    assert drawn_tree() == {"DelugeError": "", **actual}


def test_every_public_class_is_drawn_and_every_drawn_one_is_public() -> None:
    assert sorted(drawn_tree()) == sorted(errors.__all__)


def test_a_timeout_is_one_for_python_too() -> None:
    assert issubclass(errors.TimeoutError, builtins.TimeoutError)


RETRYABLE = {
    "BatchEndedError",
    "ConnectError",
    "ContentTypeError",
    "OverloadedError",
    "RateLimitError",
    "ServerError",
    "StreamInterruptedError",
    "TimeoutError",
    "TruncatedError",
}
SCOPES = {
    "AuthenticationError": "key",
    "MissingAPIKeyError": "key",
    "PermissionDeniedError": "model",
    "QuotaExceededError": "model",
    "BadRequestError": "request",
    "ContextLengthError": "request",
    "ContentFilterError": "request",
    "RequestTooLargeError": "request",
    "RateLimitError": "model",
    "OverloadedError": "model",
    "NotFoundError": "model",
    "ServerError": "model",
    "TruncatedError": "provider",
    "ProtocolError": "provider",
    "ConfigurationError": "request",
}


def test_the_decision_is_on_the_class() -> None:
    assert {each.__name__ for each in CLASSES if each.retryable} == RETRYABLE
    assert {name: getattr(errors, name).scope for name in SCOPES} == SCOPES
    assert {each.__name__: each.max_retries for each in CLASSES if each.max_retries is not None} == {
        "ContentTypeError": 1
    }


WORDING: list[tuple[DelugeError, str]] = [
    (DelugeError("it broke"), "it broke."),
    (DelugeError("did it break?"), "did it break?"),
    (DelugeError("it broke.", hint="Mend it."), "it broke. Mend it."),
    (DelugeError("it broke", provider="openai", model="gpt-4o"), "openai gpt-4o: it broke."),
    (DelugeError("it broke", model="gpt-4o"), "gpt-4o: it broke."),
    (
        StreamInterruptedError("reset", provider="acme", request_id="r-1", attempts=3, billed="maybe", hint="Go on."),
        "acme: reset (request r-1, 3 attempts, may be billed). Go on.",
    ),
    (TruncatedError("cut", billed="yes", attempts=1), "cut (billed)."),
    (
        RateLimitError("slow down", status_code=429, code="rate_limit_exceeded", retry_after_s=1.5, request_id="r"),
        "slow down (HTTP 429, rate_limit_exceeded, retry after 1.5 s, request r).",
    ),
    (APIError("odd"), "odd."),
]


@pytest.mark.parametrize(("error", "text"), WORDING, ids=lambda value: value if isinstance(value, str) else "")
def test_wording(error: DelugeError, text: str) -> None:
    assert str(error) == text


def test_what_was_received_is_in_no_message() -> None:
    error = ProtocolError("a frame is not JSON", reason="json", excerpt=b"secret" * 100)
    assert len(error.excerpt) == 200
    assert "secret" not in str(error) + repr(error)
    body = APIError("failed", body="secret")
    assert "secret" not in str(body) + repr(body)


def all_said(kind: type[DelugeError]) -> DelugeError:
    """Return an error of the class with all common attributes set."""
    context: dict[str, Any] = {
        "hint": "Do this.",
        "provider": "acme",
        "model": "m",
        "request_id": "r-1",
        "where": "mid_stream",
        "billed": "yes",
        "attempts": 2,
    }
    error = kind("it broke", **context)
    error.partial = APIResponse(content=Message.assistant("so far"), error=error)
    return error


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("travel", ["pickle", "copy", "deepcopy"])
def test_errors_travel(kind: type[DelugeError], travel: str) -> None:
    error = all_said(kind)
    error.add_note("first attempt failed")
    ways = {
        "pickle": lambda: pickle.loads(pickle.dumps(error)),  # noqa: S301 - our own bytes
        "copy": lambda: copy.copy(error),
        "deepcopy": lambda: copy.deepcopy(error),
    }
    other = ways[travel]()
    assert type(other) is kind
    assert (str(other), other.args, other.__notes__) == (str(error), error.args, error.__notes__)
    assert {**vars(other), "partial": None} == {**vars(error), "partial": None}
    assert other.partial.completion == "so far"
    if travel != "copy":
        assert other.partial.error is other


OWN_FIELDS: list[tuple[DelugeError, dict[str, Any]]] = [
    (UnknownModelError("x", suggestions=("a", "b")), {"suggestions": ("a", "b")}),
    (UnsupportedParameterError("x", parameter="seed"), {"parameter": "seed"}),
    (
        BadRequestError("x", status_code=400, code="c", type="t", retry_after_s=1.0, should_retry=False, body="{}"),
        {"status_code": 400, "code": "c", "type": "t", "retry_after_s": 1.0, "should_retry": False, "body": "{}"},
    ),
    (errors.TimeoutError("x", phase="idle", limit_s=60.0), {"phase": "idle", "limit_s": 60.0}),
    (ContentTypeError("x", reason="content_type", excerpt=b"<"), {"reason": "content_type", "excerpt": b"<"}),
]


@pytest.mark.parametrize(("error", "fields"), OWN_FIELDS, ids=lambda value: type(value).__name__)
def test_fields_of_their_own_travel_too(error: DelugeError, fields: dict[str, Any]) -> None:
    other = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes
    assert {name: getattr(other, name) for name in fields} == fields


def test_an_error_without_state_travels() -> None:
    error = DelugeError.__new__(DelugeError)
    error.__setstate__(None)
    assert vars(error) == {}


def test_as_plain_data() -> None:
    error = RateLimitError("slow", status_code=429, type="requests", provider="acme")
    data = error.to_dict()
    assert (data["type"], data["provider_type"], data["status_code"]) == ("RateLimitError", "requests", 429)
    assert data["text"] == "acme: slow (HTTP 429)."
    assert "partial" not in {name for name, value in data.items() if value is not None}


ROOT = Path(__file__).resolve().parent.parent
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]


def test_install_hints_name_packages() -> None:
    assert install_hint("tqdm") == "Run pip install tqdm."
    assert install_hint("google-auth[requests]", otherwise="do x") == (
        "Run pip install 'google-auth[requests]', or do x."
    )


def test_every_hint_to_install_is_made_by_one_function_and_names_a_package_of_an_extra() -> None:
    """The name of this library on PyPI belongs to another one."""
    packages = {re.split(r"[<>=; ]", each)[0] for each in (*EXTRAS["all"], *EXTRAS["ray"])}
    hints = 0
    for path in (ROOT / "src").rglob("*.py"):
        text = path.read_text("utf-8")
        assert path.name == "extras.py" or "pip install" not in text, path
        assert path.name == "extras.py" or "lm-deluge[" not in text, path
        for found in re.finditer(r'install_hint\("([^"]+)"', text):
            assert set(found[1].split()) <= packages
            hints += 1
    assert hints >= 5


def test_all_brings_every_extra_and_is_found_without_an_index() -> None:
    # Ray has 500 MB, and needs processes of its own.
    others = {each for extra, packages in EXTRAS.items() if extra not in ("all", "ray") for each in packages}
    assert set(EXTRAS["all"]) == others
