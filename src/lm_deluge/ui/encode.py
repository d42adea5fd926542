"""The protocols of user interfaces, by name."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Literal, TypeAlias, get_args

from lm_deluge.errors import ConfigurationError, DelugeError
from lm_deluge.ui.ag_ui import AGUIEncoder
from lm_deluge.ui.flat_encoders import OpenAIEncoder, TextEncoder
from lm_deluge.ui.frame_encoder import FrameEncoder, UIEvent
from lm_deluge.ui.vercel_ui import VercelEncoder

__all__ = ["Protocol", "encode", "frame_encoder"]

Protocol: TypeAlias = Literal["vercel-ui", "ag-ui", "openai-chat", "text"]
"""`vercel-ui`: the AI SDK (`useChat`) and assistant-ui; `ag-ui`: AG-UI 1.0; `openai-chat`: the chunks of Chat
Completions; `text`: the text alone."""

_ENCODERS: dict[str, type[FrameEncoder]] = {
    "vercel-ui": VercelEncoder,
    "ag-ui": AGUIEncoder,
    "openai-chat": OpenAIEncoder,
    "text": TextEncoder,
}


def frame_encoder(protocol: Protocol, **options: Any) -> FrameEncoder:
    """Return an encoder for one answer.

    Args:
        protocol: `vercel-ui`, `ag-ui`, `openai-chat` or `text`.
        options: `error_text`, a function from an error to the text that the client gets, by default the error's own
            message; `message_id` (not of `text`); of `vercel-ui` also `static_tools`, the names of the tools that the
            page has types for, and `decided`; of `ag-ui` also `thread_id`, `run_id`, `messages` and `denied`: all as
            the request has them, and set by `request=` of a response; of both `approval_key`, the secret that signs
            requests for approval.

    Returns:
        The encoder: `start()`, `frames(events)` for each read, and `end(response or error)` return bytes.

    Raises:
        ConfigurationError: There is no such protocol, or the protocol has no such option.

    Example:
        >>> encoder = frame_encoder("vercel-ui", message_id="msg-1")
        >>> encoder.start()
    """
    kind = _ENCODERS.get(protocol)
    if kind is None:
        raise ConfigurationError(
            f"there is no protocol {protocol!r}", hint=f"The protocols are {', '.join(get_args(Protocol))}."
        )
    try:
        return kind(**options)
    except TypeError as error:
        raise ConfigurationError(f"the protocol {protocol!r} does not take these options: {error}") from None


def encode(protocol: Protocol, events: Iterable[UIEvent], **options: Any) -> Iterator[bytes]:
    """Yield the frames of an answer; the last one is always a terminal one.

    Args:
        protocol: `vercel-ui`, `ag-ui`, `openai-chat` or `text`.
        events: The events of the answer. If they end without `ResponseFinished`, or raise an error, the last frame
            reports an error; `text` has no such frame, so there the error is raised.
        options: Those of `frame_encoder`.

    Raises:
        ConfigurationError: There is no such protocol or option, or one of the events is no event.
        DelugeError: The answer broke, and the protocol is `text`.

    Example:
        >>> b"".join(encode("vercel-ui", [ResponseStarted(), TextDelta("Hi"), ResponseFinished("stop")]))
    """
    encoder = frame_encoder(protocol, **options)
    return _encoded(encoder, events)


def _encoded(encoder: FrameEncoder, events: Iterable[UIEvent]) -> Iterator[bytes]:
    yield from filter(None, [encoder.start()])
    failure: Exception | None = None
    try:
        for event in events:
            yield from filter(None, [encoder.frames((event,))])
            if encoder.is_over:
                break
    except ConfigurationError:
        raise
    except Exception as error:  # noqa: BLE001 - of the events: it ends the answer
        failure = error
    yield from filter(None, [encoder.end(failure)])
    ended = encoder.outcome.error if encoder.outcome is not None else None
    if ended is not None and not (encoder.can_fail and isinstance(ended, DelugeError)):
        raise ended
