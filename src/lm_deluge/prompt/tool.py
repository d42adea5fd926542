"""A tool that the model may call."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from lm_deluge.errors import InvalidPromptError
from lm_deluge.prompt.plain_values import to_plain

__all__ = ["ProviderTool", "Tool"]

# The strictest rule of all supported APIs, OpenAI's: letters, digits, _ and -, at most 64.
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


class Tool(msgspec.Struct, frozen=True, kw_only=True):
    """A tool, described by a JSON schema.

    Attributes:
        name: Letters, digits, `_` and `-`, at most 64.
        description: Instructions for the model: the purpose of the tool and when to call it.
        parameters: JSON schema of the arguments, of type `object`.
        strict: Whether the provider enforces the schema on the model's arguments; None: the provider's default. OpenAI
            enforces only schemas without optional properties: there these properties may be null in the arguments.

    Raises:
        InvalidPromptError: The name is not valid, or the schema is not of type `object`.

    Example:
        >>> schema = {"type": "object", "properties": {"city": {"type": "string"}}}
        >>> client.stream("Weather in Rome?", tools=[Tool(name="weather", parameters=schema)])
    """

    name: str
    description: str = ""
    parameters: dict[str, Any] = {}
    strict: bool | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not _NAME.fullmatch(self.name):
            raise InvalidPromptError(f"{self.name!r} is not a valid tool name: 1 to 64 letters, digits, '_' or '-'")
        if not isinstance(self.parameters, dict) or self.parameters.get("type", "object") != "object":
            raise InvalidPromptError(f"the parameters of tool {self.name} are not a JSON schema of type object")
        for name in ("name", "description", "parameters"):
            msgspec.structs.force_setattr(self, name, to_plain(getattr(self, name)))

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Tool:
        """Build a tool from `{"name", "description", "parameters"}`, or from OpenAI's `{"function": {...}}`.

        Raises:
            InvalidPromptError: The name is missing or not valid, or the schema is not of type `object`.
        """
        inner = data.get("function", data)
        if not isinstance(inner, dict):
            raise InvalidPromptError("the function of a tool is not a mapping")
        known = {name: inner[name] for name in ("name", "description", "parameters", "strict") if name in inner}
        if "name" not in known:
            raise InvalidPromptError("a tool needs a name", hint='Write {"name": ..., "parameters": {...}}.')
        return cls(**known)


class ProviderTool(msgspec.Struct, frozen=True):
    """A tool in the provider's own JSON format, for example one that the provider runs itself.

    `data` is added to the request's tools unchanged; other providers reject it.

    Example:
        >>> client.stream("Latest news?", tools=[ProviderTool({"type": "web_search"})])
    """

    data: dict[str, Any]

    @property
    def name(self) -> str:
        """The tool's name in `data`, or its type where it has no name."""
        named = self.data.get("name") or self.data.get("type") or next(iter(self.data), "")
        return str(named)
