"""Answers as user interfaces read them: in the frames of their protocols, and kept for clients that come back."""

from lm_deluge.ui.encode import Protocol, encode, frame_encoder
from lm_deluge.ui.frame_encoder import DataPart, FrameEncoder

__all__ = ["DataPart", "FrameEncoder", "Protocol", "encode", "frame_encoder"]
