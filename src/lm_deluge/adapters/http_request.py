"""Build the HTTP request around an adapter's body: URL, headers and JSON."""

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
    """Return the POST request for a response of the model, without credentials.

    Args:
        call: The call; its provider's row may replace the paths and add a query and headers.
        body: The JSON fields; `call.extra_body` is merged into them here.
        path: Path for plain responses, appended to the base URL; `{model}` is replaced by the model's name.
        stream_path: Path for streams, which may include a query; empty: the same as `path`.
        headers: Headers of the wire API; headers of the provider's row and of the call replace them.
        stream_type: Media type of a stream, for the header `accept`.

    Raises:
        InvalidPromptError: The body cannot be encoded as JSON.
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
        # The encoder's message names a type or a position, never text of the prompt.
        raise InvalidPromptError(f"the request cannot be encoded as JSON: {error}") from error
    return HttpRequest(url, all_headers, data)


def build_bare_request(
    call: Call, *, method: str, path: str, below: str, query: Sequence[tuple[str, str]] = ()
) -> HttpRequest:
    """Return a request without a body and without credentials, for a resource below the path of the wire API.

    Args:
        call: Any call to the provider.
        method: HTTP method; with `GET` the request accepts an event stream.
        path: Path of the wire API; the path of the provider's row replaces it.
        below: The rest of the path, appended to `path`.
        query: Query parameters.
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
    """Return a request to another endpoint than the model's, such as files or batches, without credentials.

    Args:
        call: Any call to the provider; its row adds headers and a query.
        path: Path, appended to the base URL.
        method: HTTP method.
        query: Query parameters, added to those of the provider's row.
        headers: Headers of this request; they replace the `accept` and `content-type` of JSON.
        content: The body, encoded as JSON; None sends no body.
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
