"""Every way a call can fail, as one tree.

    DelugeError
    |- ConfigurationError                  before any byte is sent
    |  |- UnknownModelError
    |  |- MissingAPIKeyError
    |  |- UnsupportedParameterError        the model or its API cannot take what was asked
    |  |- InvalidPromptError               empty prompt, an image that is none, tools that do not fit
    |  |- MissingExtraError                an optional package is needed
    |  '- StreamConsumedError              a stream is used once
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
    |- TransportError                      no full answer
    |  |- ConnectError
    |  |  '- CertificateError
    |  |- TimeoutError                     `phase` names the clock that ran out
    |  |- RedirectRefusedError
    |  |- StreamInterruptedError           the connection died in mid-answer
    |  '- TruncatedError                   a clean end without a terminal event
    |- ProtocolError                       the peer sent what cannot be read
    |  |- ContentTypeError                 not a stream at all: an HTML page, say
    |  '- ResponseLimitError               larger than the limits allow
    '- DispatchError
       |- BudgetError                      can never fit the limits
       |- QueueClosedError
       '- JournalError                     the journal of a batch cannot be read, or not be written

`retryable` and `scope` are class attributes: whoever retries reads them, so no status lists live elsewhere.
No message carries a key or the text of a prompt; what a provider wrote about the failure is quoted, shortened.
"""

from __future__ import annotations

import builtins
import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

if TYPE_CHECKING:
    from lm_deluge.response import APIResponse
    from lm_deluge.wire.rate_limit_headers import RateLimit

__all__ = [
    "APIError",
    "AuthenticationError",
    "BadRequestError",
    "BatchEndedError",
    "BudgetError",
    "CertificateError",
    "ConfigurationError",
    "ConnectError",
    "ContentFilterError",
    "ContentTypeError",
    "ContextLengthError",
    "DelugeError",
    "DispatchError",
    "InvalidPromptError",
    "JournalError",
    "MissingAPIKeyError",
    "MissingExtraError",
    "NotFoundError",
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
    """The root of everything that this library raises.

    Attributes:
        message: What happened, in one sentence.
        hint: What to do about it, or None.
        provider: Id of the provider row, where one was involved.
        model: Our name of the model, where one was involved.
        request_id: The id that the provider gave the request.
        where: How far the exchange had come when it failed.
        billed: Whether the provider may charge for the attempt.
        partial: What was received before the failure, once any event was delivered.
        attempts: How many requests were sent for the call.
    """

    retryable: ClassVar[bool] = False
    scope: ClassVar[Scope] = "request"
    max_retries: ClassVar[int | None] = None
    """At most so many retries for errors of this class; None leaves it to the caller's budget."""

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
        # State travels beside the construction, so a partial answer may point back at its error.
        return _new, (type(self),), {"args": self.args, **self.__dict__}

    def __setstate__(self, state: dict[str, Any] | None) -> None:
        for name, value in (state or {}).items():
            setattr(self, name, value)

    def again(self) -> Self:
        """Return the same error anew: one object raised in many tasks would gather the tracebacks of all."""
        other = copy.copy(self)
        other.__cause__ = self.__cause__
        if notes := getattr(self, "__notes__", None):
            other.__notes__ = list(notes)
        return other

    def to_dict(self) -> dict[str, Any]:
        """Return the error as plain data: `type` is its class name, `text` what it says; the rest as attributes are."""
        plain = {name: value for name, value in vars(self).items() if isinstance(value, str | int | float | None)}
        return {**plain, "provider_type": plain.get("type"), "type": type(self).__name__, "text": str(self)}


class ConfigurationError(DelugeError):
    """The call cannot be made as asked. Nothing was sent."""


class UnknownModelError(ConfigurationError):
    """No row of the registry has this name; `suggestions` are the nearest ones."""

    def __init__(self, message: str, *, suggestions: tuple[str, ...] = (), **context: Any) -> None:
        super().__init__(message, **context)
        self.suggestions = suggestions


class MissingAPIKeyError(ConfigurationError):
    """No key was given and none of the provider's environment variables is set."""

    scope: ClassVar[Scope] = "key"


class UnsupportedParameterError(ConfigurationError):
    """The model or its API cannot take a parameter; `parameter` names it."""

    def __init__(self, message: str, *, parameter: str = "", **context: Any) -> None:
        super().__init__(message, **context)
        self.parameter = parameter


class InvalidPromptError(ConfigurationError):
    """The prompt cannot be sent: it is empty, of a wrong type, or a medium in it is not what it says."""


class MissingExtraError(ConfigurationError):
    """An optional package is needed; the hint names the extra that brings it."""


class StreamConsumedError(ConfigurationError):
    """A stream is used once, by one consumer."""


class APIError(DelugeError):
    """The provider answered with an error, by HTTP status or inside the stream.

    Attributes:
        status_code: The HTTP status; for an error inside a stream the status that it stands for, or None.
        code: The provider's error code.
        type: The provider's error type.
        retry_after_s: Seconds after which the provider wants to be asked again.
        should_retry: The provider's own word on retrying (`x-should-retry`), or None.
        rate_limits: What the answer's headers say about limits, by name.
        body: The error's JSON text, at most 4,096 characters.
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
    """The provider refuses the request itself."""

    scope: ClassVar[Scope] = "request"


class ContextLengthError(BadRequestError):
    """Prompt and answer do not fit the model's context window."""


class ContentFilterError(BadRequestError):
    """The provider's content filter refused the prompt."""


class AuthenticationError(APIError):
    """The provider does not accept the key."""

    scope: ClassVar[Scope] = "key"


class PermissionDeniedError(APIError):
    """The key may not use this model or endpoint."""

    scope: ClassVar[Scope] = "key"


class QuotaExceededError(APIError):
    """The account has nothing left to spend; waiting does not help."""

    scope: ClassVar[Scope] = "key"


class NotFoundError(APIError):
    """The provider has no such model or endpoint."""


class RequestTooLargeError(APIError):
    """The request has more bytes than the provider takes."""

    scope: ClassVar[Scope] = "request"


class RateLimitError(APIError):
    """Too many requests or tokens for now."""

    retryable: ClassVar[bool] = True


class OverloadedError(APIError):
    """The provider has no capacity for now."""

    retryable: ClassVar[bool] = True


class ServerError(APIError):
    """The provider failed."""

    retryable: ClassVar[bool] = True


class BatchEndedError(APIError):
    """A provider's own batch ended without this request: it expired, was cancelled, or the provider lost it.

    It was not answered and is not billed; asked in another batch it may be.
    """

    retryable: ClassVar[bool] = True


class TransportError(DelugeError):
    """No full answer arrived."""

    scope: ClassVar[Scope] = "provider"


class ConnectError(TransportError):
    """No connection: the name does not resolve, nobody listens, or the handshake was reset."""

    retryable: ClassVar[bool] = True


class CertificateError(ConnectError):
    """The server's certificate is not to be trusted. Never retried, never passed over."""

    retryable: ClassVar[bool] = False


class TimeoutError(TransportError, builtins.TimeoutError):
    """A clock ran out; `phase` names it (`pool connect first_token idle progress total`), `limit_s` its setting."""

    retryable: ClassVar[bool] = True

    def __init__(self, message: str, *, phase: Clock = "total", limit_s: float = 0.0, **context: Any) -> None:
        super().__init__(message, **context)
        self.phase: Clock = phase
        self.limit_s = limit_s


class RedirectRefusedError(TransportError):
    """The provider sent us to another origin; no header of ours went there."""


class StreamInterruptedError(TransportError):
    """The connection died before the answer was complete."""

    retryable: ClassVar[bool] = True


class TruncatedError(TransportError):
    """The stream ended in order, but without its terminal event. Never a success."""

    retryable: ClassVar[bool] = True


class ProtocolError(DelugeError):
    """The peer sent what cannot be read.

    Attributes:
        reason: `json`, `framing`, `limit`, `content_type` or `order`.
        excerpt: At most 200 bytes of what was received. It may hold model text, so it is in no message.
    """

    scope: ClassVar[Scope] = "provider"

    def __init__(self, message: str, *, reason: str = "framing", excerpt: bytes = b"", **context: Any) -> None:
        super().__init__(message, **context)
        self.reason = reason
        self.excerpt = excerpt[:200]


class ContentTypeError(ProtocolError):
    """The body is no stream of this API: an HTML page of a proxy, say. Worth one more try, no more."""

    retryable: ClassVar[bool] = True
    max_retries: ClassVar[int | None] = 1


class ResponseLimitError(ProtocolError):
    """The body, or one event of it, is larger than the limits allow."""


class DispatchError(DelugeError):
    """The dispatcher cannot take or finish the call."""


class BudgetError(DispatchError):
    """The call can never fit the limits that were set."""


class QueueClosedError(DispatchError):
    """The client was closed while the call waited."""


class JournalError(DispatchError):
    """The journal of a batch cannot be read, or what happens cannot be written into it.

    Attributes:
        path: The journal's file.
        offset: Where in it the damage begins, None where it is not damaged.
    """

    def __init__(self, message: str, *, path: str = "", offset: int | None = None, **context: Any) -> None:
        super().__init__(message, **context)
        self.path = path
        self.offset = offset
