"""Answers of language models as they are generated: streamed, typed, never silently cut."""

from lm_deluge.api_requests.credentials import read_rows_file as _read_rows_file
from lm_deluge.client.client import LLMClient
from lm_deluge.config import SamplingParams, Timeouts
from lm_deluge.errors import DelugeError
from lm_deluge.models.registry import set_user_file as _set_user_file
from lm_deluge.prompt.conversation import Conversation
from lm_deluge.prompt.message import Message
from lm_deluge.prompt.tool import Tool
from lm_deluge.response import APIResponse
from lm_deluge.usage import Usage

__all__ = [
    "APIResponse",
    "Conversation",
    "DelugeError",
    "LLMClient",
    "Message",
    "SamplingParams",
    "Timeouts",
    "Tool",
    "Usage",
]

__version__ = "0.1.0"

_set_user_file(_read_rows_file)
