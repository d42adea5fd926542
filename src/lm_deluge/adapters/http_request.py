"""The HTTP request around the body that an adapter builds: where to, with which headers, as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote, urlencode

import msgspec

from lm_deluge.adapters.adapter import Call
from lm_deluge.errors import InvalidPromptError
from lm_deluge.wire.http import HttpRequest

__all__ = ["build_bare_request", "build_http_request", "build_side_request"]

_STREAM_TYPE = "text/event-stream"
_DOCUMENT_TYPE = "application/json"


def build_http_request(
    call: Call,
    body: Mapping[str, Any],
    *,
    path: str,
    stream_path: str = "",
    headers: Mapping[str, str] | None = None,
    stream_type: str = _STREAM_TYPE,
) -> HttpRequest:
    """Return the request, without credentials.

    Args:
        call: What is asked; its provider's row may have paths, a query and headers of its own.
        body: The JSON, `extra_body` not yet in it.
        path: Where plain answers are asked for, behind the base URL; `{model}` stands for the model's name.
        stream_path: Where streams are; left empty, at the same place. May have a query.
        headers: Of the wire API.
        stream_type: What a stream's media type is.

    Raises:
        InvalidPromptError: The body does not fit into JSON.
    """
    row = call.provider
    if row.path or row.stream_path:
        path, stream_path = row.path, row.stream_path
    url = _url(call, (stream_path or path) if call.is_streamed else path)
    all_headers = {
        "content-type": _DOCUMENT_TYPE,
        "accept": stream_type if call.is_streamed else _DOCUMENT_TYPE,
        **(headers or {}),
        **row.headers,
        **{name.lower(): value for name, value in call.extra_headers.items()},
    }
    try:
        data = msgspec.json.encode({**body, **call.extra_body})
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        # Its text names a type or a position, never what the prompt says.
        raise InvalidPromptError(f"the request does not fit into JSON: {error}") from error
    return HttpRequest(url, all_headers, data)


def build_bare_request(
    call: Call, *, method: str, path: str, below: str, query: Sequence[tuple[str, str]] = ()
) -> HttpRequest:
    """Return a request without a body, credentials not yet in it.

    Args:
        call: Whose provider is asked.
        method: `GET`, say.
        path: The one of the wire API; a row may have another one.
        below: What stands behind it.
        query: Of this request.
    """
    accept = _STREAM_TYPE if method == "GET" else _DOCUMENT_TYPE
    return build_side_request(
        call, method=method, path=(call.provider.path or path) + below, query=query, headers={"accept": accept}
    )


def build_side_request(
    call: Call,
    *,
    path: str,
    method: str = "GET",
    query: Sequence[tuple[str, str]] = (),
    headers: Mapping[str, str] | None = None,
    content: Any = None,
) -> HttpRequest:
    """Return a request for something other than an answer, credentials not yet in it.

    Args:
        call: Whose provider is asked; its row says what every request has.
        path: Behind the base URL.
        method: `GET`, say.
        query: Of this request.
        headers: Of this request; win over those of a document.
        content: What is sent, as JSON; None: nothing.
    """
    body = b"" if content is None else msgspec.json.encode(content)
    all_headers = {
        "accept": _DOCUMENT_TYPE,
        **({"content-type": _DOCUMENT_TYPE} if body else {}),
        **(headers or {}),
        **call.provider.headers,
        **{name.lower(): value for name, value in call.extra_headers.items()},
    }
    url = _url(call, path)
    if query:
        url += ("&" if "?" in url else "?") + urlencode(query)
    return HttpRequest(url, all_headers, body, method)


def _url(call: Call, path: str) -> str:
    if "{model}" in path:
        path = path.replace("{model}", quote(call.model.name, safe=""))
    url = call.base_url + path
    query = call.provider.query
    return url + ("&" if "?" in url else "?") + urlencode(query) if query else url
