"""Errors of aiohttp as errors of ours."""

from __future__ import annotations

import ssl

import aiohttp
from aiohttp.http_exceptions import BadHttpMessage, ContentLengthError, TransferEncodingError
from multidict import CIMultiDict, CIMultiDictProxy

from lm_deluge.errors import (
    CertificateError,
    ConfigurationError,
    ConnectError,
    DelugeError,
    ProtocolError,
    StreamInterruptedError,
    TimeoutError,
    TransportError,
)
from lm_deluge.transport.base import DescriptorsUsedUpError
from lm_deluge.transport.connection_slots import are_descriptors_used_up

__all__ = ["before_headers", "has_partial_head", "in_body", "is_disconnect", "redacted"]


def redacted(error: Exception) -> Exception:
    """Return the error without headers, passwords, and the traceback, whose frames refer to them."""
    if isinstance(error, aiohttp.ClientResponseError):
        url, method, _, real_url = error.request_info
        nothing = CIMultiDictProxy(CIMultiDict[str]())
        error.request_info = aiohttp.RequestInfo(url.with_user(None), method, nothing, real_url.with_user(None))
        error.args = ()
    return error.with_traceback(None)


def is_disconnect(error: BaseException) -> bool:
    """Whether the server closed the connection before the head of a response."""
    return isinstance(error, aiohttp.ServerDisconnectedError | aiohttp.ClientOSError | ConnectionError)


def has_partial_head(error: BaseException) -> bool:
    """Whether a part of the response's head arrived, so that the server has seen the request."""
    return isinstance(error, aiohttp.ServerDisconnectedError) and not isinstance(error.message, str)


def before_headers(error: Exception, connect_timeout_s: float | None) -> DelugeError:
    """Return our error for a request without a response."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError | ssl.SSLCertVerificationError):
        return CertificateError(
            "the server's certificate cannot be verified",
            where="connect",
            hint="Check the host name and the installed certificate authorities.",
        )
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        limit = connect_timeout_s or 0.0
        return TimeoutError(f"no connection within {limit:g} s", phase="connect", limit_s=limit, where="connect")
    if isinstance(error, aiohttp.ClientConnectorError | aiohttp.ClientProxyConnectionError):
        if are_descriptors_used_up(error.os_error, is_of_resolver=isinstance(error, aiohttp.ClientConnectorDNSError)):
            return DescriptorsUsedUpError("this process has reached its limit of open files", where="connect")
        through = "the proxy " if isinstance(error, aiohttp.ClientProxyConnectionError) else ""
        return ConnectError(f"no connection to {through}{error.host}:{error.port}: {_reason(error)}", where="connect")
    if isinstance(error, aiohttp.InvalidURL | ValueError):
        return ConfigurationError("the base URL is invalid", hint="Write it as https://host/v1.")
    return _after_connect(error)


def _after_connect(error: Exception) -> DelugeError:
    if isinstance(error, aiohttp.ClientHttpProxyError):
        return ConnectError(f"the proxy rejected the connection with status {error.status}", where="connect")
    if isinstance(error, aiohttp.ClientResponseError):
        return ProtocolError(
            f"the response is not valid HTTP: {_first_line(error.message)}", reason="framing", billed="maybe"
        )
    if isinstance(error, ssl.SSLError):
        return ConnectError("the TLS handshake failed", where="connect")
    if is_disconnect(error):
        return StreamInterruptedError(
            "the server closed the connection without a response", where="headers", billed="maybe"
        )
    return TransportError(f"the request failed: {type(error).__name__}", where="headers", billed="maybe")


def in_body(error: Exception) -> DelugeError:
    """Return our error for a body that ended early."""
    cause = error.__cause__
    # The two excluded classes are bodies that were cut short.
    if isinstance(cause, BadHttpMessage) and not isinstance(cause, TransferEncodingError | ContentLengthError):
        return ProtocolError(
            f"the body is not valid HTTP: {_first_line(cause.message)}", reason="framing", billed="maybe"
        )
    return StreamInterruptedError("the connection broke before the answer was complete", billed="maybe")


def _reason(error: aiohttp.ClientConnectorError | aiohttp.ClientProxyConnectionError) -> str:
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return "the name does not resolve"
    inner = error.os_error
    return (inner.strerror if inner is not None else None) or type(inner).__name__


def _first_line(text: str) -> str:
    return text.strip().splitlines()[0][:120] if text.strip() else "unreadable"
