"""Strategies for messages with every type of part."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from lm_deluge.prompt.conversation import Conversation
from lm_deluge.prompt.media import Media
from lm_deluge.prompt.message import Message
from lm_deluge.prompt.parts import (
    AudioPart,
    FilePart,
    ImagePart,
    Part,
    ProviderDataPart,
    ReasoningPart,
    RefusalPart,
    TextPart,
    TokenLogprob,
    ToolCallPart,
    ToolResultPart,
    TopLogprob,
)

TEXTS = st.text(max_size=8)
JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(TEXTS, inner, max_size=2),
    max_leaves=5,
)
MEDIA = st.builds(
    Media,
    media_type=st.none() | TEXTS,
    data=st.none() | st.binary(max_size=9),
    url=st.none() | TEXTS,
    file_id=st.none() | TEXTS,
    filename=st.none() | TEXTS,
)
BYTES = st.none() | st.lists(st.integers(0, 255), max_size=2).map(tuple)
TOP = st.builds(TopLogprob, TEXTS, st.floats(allow_nan=False), BYTES)
LOGPROBS = st.builds(TokenLogprob, TEXTS, st.floats(allow_nan=False), BYTES, st.lists(TOP, max_size=1).map(tuple))
IMAGES = st.builds(ImagePart, MEDIA, st.none() | st.sampled_from(["low", "high"]))
FILES = st.builds(FilePart, MEDIA)
AUDIO = st.builds(AudioPart, MEDIA, st.none() | TEXTS)
OF_TYPE: dict[type[Part], st.SearchStrategy[Any]] = {
    TextPart: st.builds(TextPart, TEXTS, st.lists(LOGPROBS, max_size=1).map(tuple)),
    ReasoningPart: st.builds(ReasoningPart, TEXTS),
    RefusalPart: st.builds(RefusalPart, TEXTS),
    ImagePart: IMAGES,
    FilePart: FILES,
    AudioPart: AUDIO,
    ToolCallPart: st.builds(ToolCallPart, TEXTS, TEXTS, TEXTS, JSON, st.none() | TEXTS, st.booleans()),
    ToolResultPart: st.builds(
        ToolResultPart, TEXTS, TEXTS, st.lists(IMAGES | FILES | AUDIO, max_size=2).map(tuple), st.booleans()
    ),
    ProviderDataPart: st.builds(ProviderDataPart, TEXTS, TEXTS, JSON),
}
ROLES = st.sampled_from(["system", "developer", "user", "assistant", "tool"])
MESSAGES = st.builds(Message, ROLES, st.lists(st.one_of(*OF_TYPE.values()), max_size=4), st.none() | TEXTS)
CONVERSATIONS = st.builds(Conversation, st.lists(MESSAGES, max_size=4))
