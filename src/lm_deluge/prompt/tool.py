"""A tool that the model may call."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from lm_deluge.errors import InvalidPromptError

__all__ = ["ProviderTool", "Tool"]

# The strictest rule of the APIs in use (OpenAI: letters, digits, _ and -, at most 64).
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


class Tool(msgspec.Struct, frozen=True, kw_only=True):
    """A tool, described by a JSON schema.

    Attributes:
        name: Letters, digits, `_` and `-`, at most 64.
        description: What it does and when to use it, for the model.
        parameters: JSON schema of the arguments, of type `object`.
        strict: The provider is to hold the model to the schema.

    Raises:
        InvalidPromptError: A name that no API takes, or a schema that is not of type `object`.
    """

    name: str
    description: str = ""
    parameters: dict[str, Any] = {}
    strict: bool | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not _NAME.fullmatch(self.name):
            raise InvalidPromptError(f"{self.name!r} is no name for a tool: 1 to 64 letters, digits, '_' or '-'")
        if not isinstance(self.parameters, dict) or self.parameters.get("type", "object") != "object":
            raise InvalidPromptError(f"the parameters of tool {self.name} are not a JSON schema of type object")

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Tool:
        """Build a tool from `{"name", "description", "parameters"}`, or the OpenAI form that wraps it."""
        inner = data.get("function", data)
        if not isinstance(inner, dict):
            raise InvalidPromptError("the function of a tool is no mapping")
        known = {name: inner[name] for name in ("name", "description", "parameters", "strict") if name in inner}
        if "name" not in known:
            raise InvalidPromptError("a tool needs a name", hint='Write {"name": ..., "parameters": {...}}.')
        return cls(**known)


class ProviderTool(msgspec.Struct, frozen=True):
    """A tool in its provider's own words: one that the provider runs itself, or of a form that only it knows.

    `data` is put among the request's tools as it is; a provider that does not know it refuses it.
    """

    data: dict[str, Any]

    @property
    def name(self) -> str:
        """What it is called, or else its type."""
        named = self.data.get("name") or self.data.get("type") or next(iter(self.data), "")
        return str(named)
