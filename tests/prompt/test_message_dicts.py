"""Messages as dicts, in the format of Chat Completions."""

from __future__ import annotations

import base64
import enum
from collections import OrderedDict
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from lm_deluge.errors import InvalidPromptError
from lm_deluge.prompt.conversation import Conversation, check_prompts, to_conversation
from lm_deluge.prompt.media import Media
from lm_deluge.prompt.message import Message
from lm_deluge.prompt.message_dicts import message_from_dict
from lm_deluge.prompt.parts import (
    AudioPart,
    FilePart,
    ImagePart,
    ReasoningPart,
    RefusalPart,
    TextPart,
    ToolCallPart,
    ToolResultPart,
)

PNG = b"\x89PNG\r\n\x1a\n"
PNG_URL = f"data:image/png;base64,{base64.b64encode(PNG).decode()}"
PDF_URL = f"data:application/pdf;base64,{base64.b64encode(b'%PDF-1').decode()}"


class Word(str):
    """A subclass of str, as numpy.str_ is one."""

    __slots__ = ()


class Color(str, enum.Enum):  # noqa: UP042 - whose str() is not its value
    RED = "red"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"role": "user", "content": "Hi", "id": "m-1", "createdAt": 5}, Message.user("Hi")),
        ({"role": "system", "content": [{"type": "text", "text": "Be brief."}]}, Message.system("Be brief.")),
        ({"role": "developer", "content": "a", "name": "Ann"}, Message("developer", (TextPart("a"),), "Ann")),
        ({"role": "user", "content": [{"type": "input_text", "text": "a"}]}, Message.user("a")),
        ({"role": "user", "content": [TextPart("a")]}, Message.user("a")),
        (
            {"role": "user", "content": [{"type": "image_url", "image_url": {"url": PNG_URL, "detail": "low"}}]},
            Message("user", (ImagePart(Media(media_type="image/png", data=PNG), "low"),)),
        ),
        (
            {"role": "user", "content": [{"type": "image_url", "image_url": "https://a.test/1.png"}]},
            Message("user", (ImagePart(Media(url="https://a.test/1.png")),)),
        ),
        (
            {"role": "user", "content": [{"type": "input_image", "image_url": PNG_URL, "detail": "high"}]},
            Message("user", (ImagePart(Media(media_type="image/png", data=PNG), "high"),)),
        ),
        (
            {"role": "user", "content": [{"type": "input_image", "file_id": "f1"}]},
            Message("user", (ImagePart(Media(file_id="f1")),)),
        ),
        (
            {"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": "SUQz", "format": "mp3"}}]},
            Message("user", (AudioPart(Media(media_type="audio/mpeg", data=b"ID3")),)),
        ),
        (
            {"role": "user", "content": [{"type": "file", "file": {"file_data": PDF_URL, "filename": "a.pdf"}}]},
            Message("user", (FilePart(Media(media_type="application/pdf", data=b"%PDF-1", filename="a.pdf")),)),
        ),
        (
            {"role": "user", "content": [{"type": "input_file", "file_url": "https://a.test/a.pdf"}]},
            Message("user", (FilePart(Media(url="https://a.test/a.pdf")),)),
        ),
        ({"role": "assistant", "content": "a", "refusal": None, "tool_calls": None}, Message.assistant("a")),
        ({"role": "assistant", "content": None, "refusal": "No."}, Message("assistant", (RefusalPart("No."),))),
        (
            {"role": "assistant", "content": "a", "reasoning_content": "hm"},
            Message("assistant", (ReasoningPart("hm"), TextPart("a"))),
        ),
        (
            {"role": "assistant", "tool_calls": [{"id": "c", "function": {"name": "f", "arguments": '{"x":1}'}}]},
            Message("assistant", (ToolCallPart("c", "f", '{"x":1}', {"x": 1}),)),
        ),
        (
            {"role": "assistant", "tool_calls": [{"id": "c", "function": {"name": "f", "arguments": {"x": 1}}}]},
            Message("assistant", (ToolCallPart("c", "f", '{"x": 1}', {"x": 1}),)),
        ),
        (
            {"role": "assistant", "tool_calls": [{"id": "c", "function": {"name": "f", "arguments": '{"x'}}]},
            Message("assistant", (ToolCallPart("c", "f", '{"x', None, "the arguments are not JSON"),)),
        ),
        (
            {"role": "assistant", "tool_calls": [{"id": "c", "custom": {"name": "f", "input": "ls"}}]},
            Message("assistant", (ToolCallPart("c", "f", "ls", custom=True),)),
        ),
        ({"role": "tool", "tool_call_id": "c", "content": "sun"}, Message("tool", (ToolResultPart("c", "sun"),))),
        (
            {"role": "tool", "tool_call_id": "c", "content": {"a": 1}},
            Message("tool", (ToolResultPart("c", '{"a": 1}'),)),
        ),
        (
            {
                "role": "tool",
                "tool_call_id": "c",
                "is_error": True,
                "content": [{"type": "text", "text": "x"}, {"type": "image_url", "image_url": {"url": PNG_URL}}],
            },
            Message(
                "tool",
                (ToolResultPart("c", "x", (ImagePart(Media(media_type="image/png", data=PNG)),), is_error=True),),
            ),
        ),
    ],
    ids=str,
)
def test_a_message(data: dict[str, Any], message: Message) -> None:
    assert message_from_dict(data) == message
    assert to_conversation([data, {"role": "user", "content": "x"}])[0] == message


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"content": "Hi"}, "a message has no role. Write "),
        ({"role": "human", "content": "Hi"}, "a message has the unknown role 'human'"),
        ({"role": ["user"], "content": "Hi"}, "unknown role"),
        ({"role": "user"}, "the content of a message is missing"),
        ({"role": "user", "content": 5}, "the content of a message is of the type int"),
        ({"role": "user", "content": ["Hi"]}, "the field 'content' of a message must be a dict, not str"),
        ({"role": "user", "content": [{"type": "video"}]}, "a content part has the unknown type 'video'"),
        ({"role": "user", "content": [{"type": "text"}]}, "the field 'text' of a message must be text, not NoneType"),
        ({"role": "assistant", "function_call": {"name": "f"}}, "the field 'function_call'"),
        ({"role": "assistant", "tool_calls": 5}, "the field 'tool_calls' must be a list, not int"),
        (
            {"role": "assistant", "tool_calls": [{"function": {"name": "f"}}]},
            "the field 'id' of a message must be text",
        ),
        ({"role": "tool", "content": "x"}, "the field 'tool_call_id' of a message must be text"),
    ],
    ids=str,
)
def test_what_is_no_message(data: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidPromptError) as caught:
        to_conversation([data])
    assert words in str(caught.value)


@pytest.mark.parametrize("kind", ["image_url", "input_image", "file", "input_file"])
def test_a_path_never_reads_a_file_of_the_server(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "secret.png"
    path.write_bytes(PNG)
    for source in (str(path), f"file://{path}"):
        piece = {"type": kind, "image_url": source, "file": {"file_data": source}, "file_data": source}
        piece = {name: value for name, value in piece.items() if name != "file" or kind == "file"}
        with pytest.raises(InvalidPromptError, match="neither an http"):
            to_conversation([{"role": "user", "content": [piece]}])


@pytest.mark.parametrize(
    "prompt",
    [
        {"role": "user", "content": "a"},
        [{"role": "user", "content": "a"}],
        ({"role": "user", "content": "a"},),
        [Message.user("a")],
        [MappingProxyType({"role": "user", "content": "a"})],
        [OrderedDict(role=Word("user"), content=Word("a"))],
        Word("a"),
        Message.user(Word("a")),
    ],
    ids=repr,
)
def test_prompts_of_dicts_and_subclasses_become_plain(prompt: Any) -> None:
    conversation = to_conversation(prompt)
    assert conversation == Conversation.user("a")
    part = conversation[0].parts[0]
    assert isinstance(part, TextPart)
    assert type(part.text) is str
    assert type(conversation[0].role) is str


def test_the_text_of_an_enum_is_its_value() -> None:
    assert to_conversation(Color.RED)[0].completion == "red"


@pytest.mark.parametrize(
    "prompts",
    ["One?", Word("One?"), b"One?", Conversation.user("a"), Message.user("a"), {"role": "user", "content": "a"}],
    ids=lambda value: type(value).__name__,
)
def test_a_single_prompt_is_no_batch(prompts: Any) -> None:
    with pytest.raises(InvalidPromptError) as caught:
        check_prompts(prompts)
    kind = type(prompts).__name__
    assert str(caught.value) == f"a batch takes a list of prompts, not a single {kind}. Write [prompt]."


class Table:
    """Iterating over a table yields the names of its columns."""

    columns = ("prompt",)

    def __iter__(self) -> Any:
        return iter(self.columns)


@pytest.mark.parametrize("prompts", [5, None, Table()], ids=lambda value: type(value).__name__)
def test_what_is_no_list_is_no_batch(prompts: Any) -> None:
    with pytest.raises(InvalidPromptError, match=f"a batch takes a list of prompts, not {type(prompts).__name__}"):
        check_prompts(prompts)


def test_an_iterator_is_a_batch_and_is_not_read() -> None:
    prompts = iter(["a", "b"])
    assert list(check_prompts(prompts)) == ["a", "b"]
