"""All errors that this library raises, as one tree of classes.

    DelugeError
    |- ConfigurationError                  before any byte is sent
    |  |- UnknownModelError
    |  |- MissingAPIKeyError
    |  |- UnsupportedParameterError        the model or its API does not support a parameter
    |  |- InvalidPromptError               an empty prompt, bytes that are not an image, an invalid tool
    |  |  '- ChatRequestError              a request of a browser that is malformed, or has what browsers may not send
    |  |- MissingExtraError                an optional package is needed
    |  '- StreamConsumedError              the stream was used before
    |- APIError                            the provider answered with an error
    |  |- BadRequestError                  400, 405, 415, 422 ...
    |  |  |- ContextLengthError
    |  |  '- ContentFilterError
    |  |- AuthenticationError              401
    |  |- PermissionDeniedError            403
    |  |- QuotaExceededError               402, 429 "insufficient quota"
    |  |- NotFoundError                    404
    |  |- RequestTooLargeError             413
    |  |- RateLimitError                   429
    |  |- OverloadedError                  503, 529
    |  |- ServerError                      other 5xx, 408, 409
    |  '- BatchEndedError                  a provider's own batch expired, was cancelled or lost a request
    |- TransportError                      no complete answer arrived
    |  |- ConnectError
    |  |  '- CertificateError
    |  |- TimeoutError                     `phase` names the timeout that expired
    |  |- RedirectRefusedError
    |  |- StreamInterruptedError           the connection broke in the middle of the answer
    |  '- TruncatedError                   a clean end without a terminal event
    |- ProtocolError                       the server sent bytes that cannot be parsed
    |  |- ContentTypeError                 the body is not a stream, but an HTML page for example
    |  |- InvalidJSONError                 a text that arrives in pieces is not JSON; `offset` is its first wrong byte
    |  '- ResponseLimitError               the body or an event is larger than the limits allow
    |- InvalidValueError                   a value that the model generated does not fit its type or schema
    |  '- OutputError                      the answer is not the object that `output=` describes; `path` is where
    |- ToolError                           a tool or an MCP server failed otherwise than by an exception of the tool
    '- DispatchError
       |- BudgetError                      larger than a rate limit, or beyond `max_cost`
       |- FilterError                      a filter refused the answer, or failed
       |- QueueClosedError
       '- JournalError                     the journal of a batch cannot be read or written

`retryable` and `scope` are class attributes, which the retry logic reads: it needs no lists of status codes.
No message contains a key or the text of a prompt. A provider's own error message is quoted, but shortened.
"""

from __future__ import annotations

import builtins
import copy
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

if TYPE_CHECKING:  # for annotations only: both modules stand in higher layers, and `response` imports this one
    from lm_deluge.response import APIResponse
    from lm_deluge.wire.rate_limit_headers import RateLimit

__all__ = [
    "APIError",
    "AuthenticationError",
    "BadRequestError",
    "BatchEndedError",
    "BudgetError",
    "CertificateError",
    "ChatRequestError",
    "ConfigurationError",
    "ConnectError",
    "ContentFilterError",
    "ContentTypeError",
    "ContextLengthError",
    "DelugeError",
    "DispatchError",
    "FilterError",
    "InvalidJSONError",
    "InvalidPromptError",
    "InvalidValueError",
    "JournalError",
    "MissingAPIKeyError",
    "MissingExtraError",
    "NotFoundError",
    "OutputError",
    "OverloadedError",
    "PermissionDeniedError",
    "ProtocolError",
    "QueueClosedError",
    "QuotaExceededError",
    "RateLimitError",
    "RedirectRefusedError",
    "RequestTooLargeError",
    "ResponseLimitError",
    "ServerError",
    "StreamConsumedError",
    "StreamInterruptedError",
    "TimeoutError",
    "ToolError",
    "TransportError",
    "TruncatedError",
    "UnknownModelError",
    "UnsupportedParameterError",
]

Scope = Literal["request", "key", "model", "provider"]
Billed = Literal["no", "maybe", "yes"]
Phase = Literal["connect", "headers", "before_first_event", "mid_stream", "after_terminal"]
Clock = Literal["pool", "connect", "first_token", "idle", "progress", "total"]


def _new(cls: type[DelugeError]) -> DelugeError:
    return cls.__new__(cls)


class DelugeError(Exception):
    """Base class of all errors that this library raises.

    Attributes:
        message: What happened, in one sentence.
        hint: What to do about it, or None.
        provider: Id of the provider row, where one was involved.
        model: Our name of the model, where one was involved.
        request_id: The id that the provider gave the request.
        where: The phase of the HTTP exchange in which it failed.
        billed: Whether the provider may charge for the attempt.
        partial: The response up to the failure, None where no event had been delivered.
        attempts: How many requests were sent for the call.

    Example:
        >>> try:
        ...     response = await client.stream("Tell me a story")
        ... except DelugeError as error:
        ...     print(error, error.partial.completion if error.partial else "")
    """

    retryable: ClassVar[bool] = False
    scope: ClassVar[Scope] = "request"
    max_retries: ClassVar[int | None] = None
    """Retries allowed after errors of this class; None: only `max_attempts` limits them."""

    def __init__(  # noqa: PLR0913 - the context of a failure, all optional and keyword-only
        self,
        message: str,
        *,
        hint: str | None = None,
        provider: str | None = None,
        model: str | None = None,
        request_id: str | None = None,
        where: Phase | None = None,
        billed: Billed = "no",
        partial: APIResponse | None = None,
        attempts: int = 0,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.provider = provider
        self.model = model
        self.request_id = request_id
        self.where: Phase | None = where
        self.billed: Billed = billed
        self.partial = partial
        self.attempts = attempts

    def __str__(self) -> str:
        at = " ".join(dict.fromkeys(word for word in (self.provider, self.model) if word))
        text = f"{at}: {self.message}" if at else self.message
        details = self._details()
        if details:
            text += f" ({', '.join(details)})"
        if not text.endswith((".", "!", "?")):
            text += "."
        return f"{text} {self.hint}" if self.hint else text

    def _details(self) -> list[str]:
        details = []
        if self.request_id:
            details.append(f"request {self.request_id}")
        if self.attempts > 1:
            details.append(f"{self.attempts} attempts")
        if self.billed != "no":
            details.append("billed" if self.billed == "yes" else "may be billed")
        return details

    def __reduce__(self) -> tuple[Any, ...]:
        # The state is pickled apart from the constructor call, so that `partial.error` may refer to this error.
        return _new, (type(self),), {"args": self.args, **self.__dict__}

    def __setstate__(self, state: dict[str, Any] | None) -> None:
        for name, value in (state or {}).items():
            setattr(self, name, value)

    def again(self) -> Self:
        """Return a copy: one error object raised in several tasks would collect the tracebacks of all of them."""
        other = copy.copy(self)
        other.__cause__ = self.__cause__
        if notes := getattr(self, "__notes__", None):
            other.__notes__ = list(notes)
        return other

    def to_dict(self) -> dict[str, Any]:
        """Return the error as plain data: `type` is the class name, `text` the full message, the rest attributes."""
        plain = {name: each for name, each in vars(self).items() if isinstance(each, str | int | float | tuple | None)}
        return {**plain, "provider_type": plain.get("type"), "type": type(self).__name__, "text": str(self)}


class ConfigurationError(DelugeError):
    """The arguments of the call are invalid or incomplete. Nothing was sent."""


class UnknownModelError(ConfigurationError):
    """The registry has no model or provider of this name; `suggestions` are the most similar names."""

    def __init__(self, message: str, *, suggestions: tuple[str, ...] = (), **context: Any) -> None:
        super().__init__(message, **context)
        self.suggestions = suggestions


class MissingAPIKeyError(ConfigurationError):
    """No key was given and none of the provider's environment variables is set."""

    scope: ClassVar[Scope] = "key"


class UnsupportedParameterError(ConfigurationError):
    """The model or its API does not support a parameter; `parameter` names it."""

    def __init__(self, message: str, *, parameter: str = "", **context: Any) -> None:
        super().__init__(message, **context)
        self.parameter = parameter


class InvalidPromptError(ConfigurationError):
    """The prompt cannot be sent: it is empty, of a wrong type, or contains an invalid image, file, audio or tool."""


class ChatRequestError(InvalidPromptError):
    """The body of a browser's request is malformed, or has what a browser may not send; the status for it is 400."""


class MissingExtraError(ConfigurationError):
    """An optional package is not installed; the hint names it."""


class StreamConsumedError(ConfigurationError):
    """The stream was used before: a stream can be used once, by one consumer."""


class APIError(DelugeError):
    """The provider answered with an error, by HTTP status or inside the stream.

    Attributes:
        status_code: The HTTP status; for an error inside a stream the status that it corresponds to, or None.
        code: The provider's error code.
        type: The provider's error type.
        retry_after_s: Seconds to wait before the next request, as a header or the error itself asks, or None.
        should_retry: Whether the provider itself asks for a retry (`x-should-retry`), or None.
        rate_limits: The rate limits in the headers of the response, by name.
        body: The provider's error object as JSON text, at most 4,096 characters.
    """

    scope: ClassVar[Scope] = "model"

    def __init__(
        self,
        message: str,
        *,
        status_code: int | None = None,
        code: str | None = None,
        type: str | None = None,
        retry_after_s: float | None = None,
        should_retry: bool | None = None,
        body: str = "",
        **context: Any,
    ) -> None:
        super().__init__(message, **context)
        self.status_code = status_code
        self.code = code
        self.type = type
        self.retry_after_s = retry_after_s
        self.should_retry = should_retry
        self.rate_limits: Mapping[str, RateLimit] = {}
        self.body = body

    def _details(self) -> list[str]:
        details = [] if self.status_code is None else [f"HTTP {self.status_code}"]
        if self.code:
            details.append(self.code)
        if self.retry_after_s is not None:
            details.append(f"retry after {self.retry_after_s:g} s")
        return details + super()._details()


class BadRequestError(APIError):
    """The provider rejects the request as invalid."""

    scope: ClassVar[Scope] = "request"


class ContextLengthError(BadRequestError):
    """Prompt and answer together do not fit into the model's context window.

    Raised before anything is sent (`status_code` is None) if the prompt is far too long for each model of the client.
    """


class ContentFilterError(BadRequestError):
    """The provider's content filter refused the prompt."""


class AuthenticationError(APIError):
    """The provider does not accept the key."""

    scope: ClassVar[Scope] = "key"


class PermissionDeniedError(APIError):
    """The key may not use this model or endpoint."""


class QuotaExceededError(APIError):
    """The account has no credit or quota left, for all models or for this one; waiting does not help."""


class NotFoundError(APIError):
    """The provider has no such model or endpoint."""


class RequestTooLargeError(APIError):
    """The request has more bytes than the provider accepts."""

    scope: ClassVar[Scope] = "request"


class RateLimitError(APIError):
    """The rate limit of requests or tokens is exceeded for the moment."""

    retryable: ClassVar[bool] = True


class OverloadedError(APIError):
    """The provider has no capacity for the moment."""

    retryable: ClassVar[bool] = True


class ServerError(APIError):
    """The provider had an internal failure."""

    retryable: ClassVar[bool] = True


class BatchEndedError(APIError):
    """A provider's own batch ended without this request: it expired, was cancelled, or the provider lost it.

    The request was not answered and is not billed. It can be sent again in another batch.
    """

    retryable: ClassVar[bool] = True


class TransportError(DelugeError):
    """No complete answer arrived."""

    scope: ClassVar[Scope] = "provider"


class ConnectError(TransportError):
    """No connection: the host name does not resolve, the port is closed, or the handshake failed."""

    retryable: ClassVar[bool] = True


class CertificateError(ConnectError):
    """The server's TLS certificate cannot be verified. Never retried; verification cannot be turned off."""

    retryable: ClassVar[bool] = False


class TimeoutError(TransportError, builtins.TimeoutError):
    """A timeout expired; `phase` names it (`pool connect first_token idle progress total`), `limit_s` is its length."""

    retryable: ClassVar[bool] = True

    def __init__(self, message: str, *, phase: Clock = "total", limit_s: float = 0.0, **context: Any) -> None:
        super().__init__(message, **context)
        self.phase: Clock = phase
        self.limit_s = limit_s


class RedirectRefusedError(TransportError):
    """The provider redirected to another origin. The redirect was not followed, so no key was sent there."""


class StreamInterruptedError(TransportError):
    """The connection broke before the answer was complete."""

    retryable: ClassVar[bool] = True


class TruncatedError(TransportError):
    """The stream ended cleanly, but without its terminal event, so the answer may be incomplete."""

    retryable: ClassVar[bool] = True


class ProtocolError(DelugeError):
    """The server sent bytes that cannot be parsed.

    Attributes:
        reason: `json`, `framing`, `limit`, `content_type` or `order`.
        excerpt: At most 200 of the received bytes. They may contain model text, so no message quotes them.
    """

    scope: ClassVar[Scope] = "provider"

    def __init__(self, message: str, *, reason: str = "framing", excerpt: bytes = b"", **context: Any) -> None:
        super().__init__(message, **context)
        self.reason = reason
        self.excerpt = excerpt[:200]


class ContentTypeError(ProtocolError):
    """The body is not a stream of this API, but an HTML page of a proxy for example. Retried once."""

    retryable: ClassVar[bool] = True
    max_retries: ClassVar[int | None] = 1


class InvalidJSONError(ProtocolError):
    """A text that arrives in pieces is not JSON; `offset` counts the bytes of UTF-8 before the first wrong one."""

    def __init__(self, message: str, *, offset: int = 0, **context: Any) -> None:
        super().__init__(message, **{"reason": "json", **context})
        self.offset = offset


class ResponseLimitError(ProtocolError):
    """The body, or one event in it, is larger than the limits allow."""


class InvalidValueError(DelugeError):
    """A value does not fit its type or schema: at `path`, and elsewhere (`problems`). The message is for the model."""

    def __init__(
        self, message: str, *, problems: Iterable[tuple[Iterable[str | int], str]] = (), **context: Any
    ) -> None:
        super().__init__(message, **context)
        self.problems = tuple((tuple(path), text) for path, text in problems)
        self.path: tuple[str | int, ...] = self.problems[0][0] if self.problems else ()


class OutputError(InvalidValueError):
    """The answer is not the object that `output=` describes. `value` is the object so far, as plain data."""

    value: Any = None


class ToolError(DelugeError):
    """A tool call failed, but not by an exception of the tool; or an MCP server cannot be used. `tool` names it.

    `reason`: `unknown` (there is no such tool), `arguments` or `result` (no JSON), `timeout`, `exit` (`SystemExit` and
    the like), `failed` (reported by an MCP tool) or `server` (an MCP server does not start, or ended).
    """

    def __init__(self, message: str, *, tool: str = "", reason: str = "failed", **context: Any) -> None:
        super().__init__(message, **context)
        self.tool = tool
        self.reason = reason


class DispatchError(DelugeError):
    """The call was not sent or not finished for a reason on our side: limits, budget, shutdown or journal."""


class BudgetError(DispatchError):
    """The call is larger than a rate limit allows in its whole period, or would exceed `max_cost`."""


class FilterError(DispatchError):
    """A filter ended the answer with an error: `RaiseAt` found a match, or a `Guard` or a pattern failed."""


class QueueClosedError(DispatchError):
    """The client was closed while the call waited for permission to send."""


class JournalError(DispatchError):
    """The journal of a batch cannot be read or written.

    Attributes:
        path: The journal's file.
        offset: The byte of the file at which the damage begins, None where it is not damaged.
    """

    def __init__(self, message: str, *, path: str = "", offset: int | None = None, **context: Any) -> None:
        super().__init__(message, **context)
        self.path = path
        self.offset = offset
