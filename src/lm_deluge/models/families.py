"""What the models of a family accept, by patterns on their names. Pure."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

from lm_deluge.errors import ConfigurationError
from lm_deluge.models.data_files import read_data_file

__all__ = ["describe_model", "plain_name"]

# Parts of names that hosts add to a model's own name. Vendors and folders: `openai/gpt-oss-20b`,
# `accounts/fireworks/models/glm-5`, `@cf/meta/llama-3`; regions and vendors of Bedrock: `us.anthropic.claude-...`.
_FOLDER = re.compile(r"^.*/")
_FINE_TUNE = re.compile(r"^ft:([^:]+).*$")
_REGION = re.compile(r"^(?:(?:us|eu|apac|au|jp|in|us-gov|global)\.)?([a-z0-9]+)\.(?=[a-z])")
_HOST = re.compile(r"^(databricks|snowflake|azure|anthropic|openai|meta|amazon|nvidia|mistralai|zai-org)-(?=[a-z])")
# Dates, revisions and variants at the end: `-20250929`, `-2025-08-07`, `@20250929`, `-v1:0`, `:free`, `@default`.
_ENDING = re.compile(r"([-@](\d{8}|\d{4}-\d\d-\d\d|default)|-v\d+|-\d+:\d+|:[\w.-]*)$")
# Versions with another separator: `claude-opus-4-5`, `deepseek-v3p1`, `llama-v3p1`.
_P_VERSION = re.compile(r"(?<=\d)p(?=\d)")
_DASH_VERSION = re.compile(r"(?<=(?<!\d)\d)-(?=\d{1,2}(?![\w.]))")


def plain_name(name: str) -> str:
    """Return the name of a model without vendor, region, date and release, in lower case, versions with dots.

    Example:
        >>> plain_name("us.anthropic.claude-opus-4-5-20251101-v1:0")
        'claude-opus-4.5'
    """
    plain = _FINE_TUNE.sub(r"\1", name.lower())
    plain = _FOLDER.sub("", plain).lstrip("~@").replace("_", "-")
    plain = _HOST.sub("", _REGION.sub("", plain))
    while (shorter := _ENDING.sub("", plain)) != plain:
        plain = shorter
    return _DASH_VERSION.sub(".", _P_VERSION.sub(".", plain))


def describe_model(name: str, provider: str) -> dict[str, Any]:
    """Return the fields of `Capabilities` that are known of a model from its family; empty if no family matches.

    Args:
        name: The model's name on the wire.
        provider: Id of the provider that serves the model.
    """
    plain = plain_name(name)
    facts: dict[str, Any] = {}
    for pattern, hosts, fields in _families():
        if (not hosts or provider in hosts) and pattern.match(plain):
            facts |= fields
    return facts


@cache
def _families() -> list[tuple[re.Pattern[str], tuple[str, ...], dict[str, Any]]]:
    import tomllib

    text = read_data_file("families.toml").decode()
    families = []
    for number, table in enumerate(tomllib.loads(text)["family"], 1):
        names, hosts = table.pop("names"), tuple(table.pop("hosts", ()))
        if not table.pop("source", None) or not table.pop("date", None):
            raise ConfigurationError(f"families.toml: entry {number} ({names}) has no source or no date")
        families.append((re.compile(rf"(?:{names})(?![\w.])"), hosts, table))
    return families
