"""Answers as user interfaces read them: in the frames of their protocols, and kept for clients that come back."""

from lm_deluge.errors import ChatRequestError
from lm_deluge.ui.chat_requests import approvals_from, conversation_from
from lm_deluge.ui.chat_streams import ChatStreams
from lm_deluge.ui.encode import Protocol, encode, frame_encoder
from lm_deluge.ui.frame_encoder import DataPart, FrameEncoder
from lm_deluge.ui.stream_response import StreamResponse

__all__ = [
    "ChatRequestError",
    "ChatStreams",
    "DataPart",
    "FrameEncoder",
    "Protocol",
    "StreamResponse",
    "approvals_from",
    "conversation_from",
    "encode",
    "frame_encoder",
]
