"""Requests as values."""

from __future__ import annotations

from lm_deluge.wire.http import HttpHead, HttpRequest


def test_headers_and_body_never_print() -> None:
    request = HttpRequest("https://a.test", {"authorization": "Bearer secret"}, b"the prompt")
    assert repr(request) == "HttpRequest(POST https://a.test, 10 bytes)"


def test_a_head_is_a_value() -> None:
    assert HttpHead(200, {"a": "b"}) == HttpHead(200, {"a": "b"})
