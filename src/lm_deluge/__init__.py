"""Answers of language models as they are generated: streamed, typed, never silently cut."""

import importlib
from typing import TYPE_CHECKING, Any

from lm_deluge.api_requests.credentials import read_fetched_rows as _read_fetched_rows
from lm_deluge.api_requests.credentials import read_rows_file as _read_rows_file
from lm_deluge.models.registry import set_fetched_file as _set_fetched_file
from lm_deluge.models.registry import set_user_file as _set_user_file

if TYPE_CHECKING:
    from lm_deluge.agents.execute import execute_tool_calls
    from lm_deluge.client.client import LLMClient
    from lm_deluge.config import SamplingParams, Timeouts
    from lm_deluge.errors import DelugeError
    from lm_deluge.prompt.conversation import Conversation
    from lm_deluge.prompt.message import Message
    from lm_deluge.prompt.parts import File
    from lm_deluge.prompt.tool import Tool
    from lm_deluge.response import APIResponse
    from lm_deluge.tools.mcp.server import MCPServer
    from lm_deluge.usage import Usage

__all__ = [
    "APIResponse",
    "Conversation",
    "DelugeError",
    "File",
    "LLMClient",
    "MCPServer",
    "Message",
    "SamplingParams",
    "Timeouts",
    "Tool",
    "Usage",
    "execute_tool_calls",
]

__version__ = "0.1.0"

# Imported on first use, so that `import lm_deluge` and the help of the command stay fast: asyncio and aiohttp alone
# take longer to import than everything else (2026-11).
_MODULES = {
    "APIResponse": "lm_deluge.response",
    "Conversation": "lm_deluge.prompt.conversation",
    "DelugeError": "lm_deluge.errors",
    "File": "lm_deluge.prompt.parts",
    "LLMClient": "lm_deluge.client.client",
    "MCPServer": "lm_deluge.tools.mcp.server",
    "Message": "lm_deluge.prompt.message",
    "SamplingParams": "lm_deluge.config",
    "Timeouts": "lm_deluge.config",
    "Tool": "lm_deluge.prompt.tool",
    "Usage": "lm_deluge.usage",
    "execute_tool_calls": "lm_deluge.agents.execute",
}

_set_user_file(_read_rows_file)
_set_fetched_file(_read_fetched_rows)


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'lm_deluge' has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(_MODULES[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
