"""The bodies of requests of the page, checked."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias, TypeVar

import msgspec

from lm_deluge.config import ReasoningEffort, SamplingParams
from lm_deluge.errors import BadRequestError, ConfigurationError

__all__ = [
    "AnswerRequest",
    "AnswerSettings",
    "ConversationChange",
    "NewConversation",
    "NewMessage",
    "NewText",
    "SignIn",
    "check_settings",
    "check_title",
    "parse_body",
]

T = TypeVar("T")

_LONGEST_TITLE = 300  # characters; a title is one line
_MOST_MODELS = 2  # side by side
_MOST_PARTS = 64  # of a message: more files than any provider takes


class AnswerSettings(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """The settings of a conversation, or of single answers; None leaves a parameter to the provider.

    Attributes:
        models: The models that the page has selected.
        tools: Whether the model may call the tools of the server.
        others: As in `SamplingParams`.
    """

    models: list[str] = []
    tools: bool = True
    temperature: float | None = None
    top_p: float | None = None
    max_new_tokens: int | None = None
    stop: list[str] | None = None
    seed: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    reasoning_effort: ReasoningEffort | None = None
    verbosity: Literal["low", "medium", "high"] | None = None
    service_tier: str | None = None

    def sampling(self) -> dict[str, Any]:
        """Return the sampling parameters that are set."""
        fields = {name: getattr(self, name) for name in self.__struct_fields__ if name not in ("models", "tools")}
        return {name: value for name, value in fields.items() if value is not None}


class SignIn(msgspec.Struct):
    """The body of a sign-in."""

    key: str


class NewConversation(msgspec.Struct, forbid_unknown_fields=True):
    """The body that creates a conversation."""

    title: str = ""
    system: str = ""
    settings: AnswerSettings = msgspec.field(default_factory=AnswerSettings)


class ConversationChange(msgspec.Struct, forbid_unknown_fields=True):
    """The body that changes a conversation: the fields that it has."""

    title: str | msgspec.UnsetType = msgspec.UNSET
    system: str | msgspec.UnsetType = msgspec.UNSET
    settings: AnswerSettings | msgspec.UnsetType = msgspec.UNSET
    head: str | msgspec.UnsetType | None = msgspec.UNSET


class NewText(msgspec.Struct, tag="text"):
    """Text of a message."""

    text: str


class NewImage(msgspec.Struct, tag="image"):
    """An image of a message, which was sent before."""

    file_id: str


class NewFile(msgspec.Struct, tag="file"):
    """A file of a message, which was sent before."""

    file_id: str


PartInput: TypeAlias = NewText | NewImage | NewFile


class NewMessage(msgspec.Struct):
    """A message of the user."""

    parts: list[PartInput]

    @property
    def text(self) -> str:
        """All text of the message."""
        return "\n".join(part.text for part in self.parts if isinstance(part, NewText))

    @property
    def file_ids(self) -> list[str]:
        """The ids of its files."""
        return [part.file_id for part in self.parts if not isinstance(part, NewText)]


class AnswerRequest(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """The body that asks for answers.

    Attributes:
        parent: The message before; None: the new message is the first one.
        message: A new message of the user; None: the parent, a message of the user, is answered once more.
        models: The models that answer, side by side.
        settings: The settings of these answers; None: those of the conversation.
    """

    models: list[str]
    parent: str | None = None
    message: NewMessage | None = None
    settings: AnswerSettings | None = None

    def check(self) -> None:
        """Check what the types do not have.

        Raises:
            BadRequestError: There is no message, or a number of models that is not possible.
        """
        if not 1 <= len(self.models) <= _MOST_MODELS or len(set(self.models)) < len(self.models):
            raise BadRequestError("models has one name, or two different ones", status_code=400)
        if self.settings is not None:
            check_settings(self.settings)
        if self.message is None:
            if self.parent is None:
                raise BadRequestError("there is neither a message nor a parent to answer", status_code=400)
            return
        if not any(not isinstance(part, NewText) or part.text.strip() for part in self.message.parts):
            raise BadRequestError("the message is empty", status_code=400)
        if len(self.message.parts) > _MOST_PARTS:
            raise BadRequestError(f"a message has {_MOST_PARTS} parts at most", status_code=400)


def parse_body(body: bytes, kind: type[T]) -> T:
    """Return the body of a request.

    Raises:
        BadRequestError: It is not JSON, or not of this kind.
    """
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as error:
        raise BadRequestError(f"the body cannot be used: {error}", status_code=400) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise BadRequestError("the body is not JSON", status_code=400) from None


def check_title(title: str) -> str:
    """Return a title as one line.

    Raises:
        BadRequestError: It is too long.
    """
    title = " ".join(title.split())
    if len(title) > _LONGEST_TITLE:
        raise BadRequestError(f"a title has {_LONGEST_TITLE} characters at most", status_code=400)
    return title


def check_settings(settings: AnswerSettings) -> None:
    """Check the values of settings.

    Raises:
        BadRequestError: A value is out of range, or there are too many models.
    """
    if len(settings.models) > _MOST_MODELS:
        raise BadRequestError(f"a conversation has {_MOST_MODELS} models at most", status_code=400)
    try:
        SamplingParams(**settings.sampling())
    except ConfigurationError as error:
        raise BadRequestError(str(error), status_code=400) from None
