"""Messages and conversations that grow, with the names of the older lm-deluge as well."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest

from lm_deluge import Conversation, File, Message
from lm_deluge.errors import InvalidPromptError
from lm_deluge.prompt.conversation import to_conversation
from lm_deluge.prompt.message import Parts
from lm_deluge.prompt.parts import FilePart, ImagePart, ReasoningPart, TextPart, ToolCallPart, ToolResultPart
from lm_deluge.response import APIResponse

PNG = b"\x89PNG\r\n\x1a\n rest"
PDF = b"%PDF-1.7 rest"
ADDED: list[tuple[str, tuple[Any, ...], Any]] = [
    ("text", ("b",), TextPart("b")),
    ("image", (PNG,), ImagePart(Message.user(image=PNG).images[0].media)),
    ("file", (PDF,), File(PDF)),
    ("audio", (b"ID3",), Message.user(audio=b"ID3").parts[0]),
    ("tool_call", ("c1", "f", {"a": 1}), ToolCallPart("c1", "f", '{"a": 1}', {"a": 1})),
    ("tool_result", ("c1", {"b": 2}), ToolResultPart("c1", '{"b": 2}')),
    ("thinking", ("hm",), ReasoningPart("hm")),
]


@pytest.mark.parametrize(("kind", "arguments", "part"), ADDED, ids=[kind for kind, *_ in ADDED])
def test_add_changes_the_message_and_with_makes_a_copy(kind: str, arguments: tuple[Any, ...], part: Any) -> None:
    message = Message.user("a")
    longer = getattr(message, f"with_{kind}")(*arguments)
    assert longer.parts == (TextPart("a"), part)
    assert message.parts == (TextPart("a"),)
    assert getattr(message, f"add_{kind}")(*arguments) is message
    assert message == longer


def test_parts_are_a_list_of_the_message_that_equals_tuples() -> None:
    message = Message.user("a")
    message.parts.append(File(PDF, "a.pdf"))
    assert [type(part) for part in message.parts] == [TextPart, FilePart]
    assert message.parts == tuple(message.parts)
    assert tuple(message.parts) == message.parts
    assert message.parts[:1] == (TextPart("a"),)
    assert (message.parts != (TextPart("a"),), message.parts == "text", Parts() == ()) == (True, False, True)
    copy = message.copy()
    copy.add_text("b")
    assert len(message.parts) == 2
    with pytest.raises(TypeError, match="unhashable"):
        hash(message)


def test_default_messages_share_no_list() -> None:
    APIResponse().content.add_text("a")
    assert APIResponse().content.parts == ()


def test_a_call_has_messages_of_its_own() -> None:
    message = Message.user("a")
    prompts = [message, [message], Conversation([message])]
    sent = [to_conversation(prompt) for prompt in prompts]
    copied = prompts[2].copy()
    message.add_text("b")
    assert [each[0].text for each in (*sent, copied)] == ["a"] * 4


@pytest.mark.parametrize(
    "source",
    [PDF, bytearray(PDF), io.BytesIO(PDF), "report.pdf", Path("report.pdf")],
    ids=lambda each: type(each).__name__,
)
def test_files(source: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("report.pdf").write_bytes(PDF)
    file = File(source, filename="Q4.pdf")
    assert (file.media.data, file.media.media_type, file.media.filename) == (PDF, "application/pdf", "Q4.pdf")
    assert Message.user("a").add_file(file).files == (file,)
    assert Conversation.user("a", file=file)[0].files == (file,)
    assert Message.user("a").add_file(file, filename="Q1.pdf").files[0].media.filename == "Q1.pdf"
    assert File(source, media_type="text/x-odd").media.media_type == "text/x-odd"


def test_images_and_audio_of_other_messages() -> None:
    image, audio = Message.user(image=PNG).images[0], Message.user(audio=b"ID3").parts[0]
    assert Message.user().add_image(image).add_image(image, detail="low").parts == (
        image,
        ImagePart(image.media, "low"),
    )
    assert Message.user(audio=audio).parts == (audio,)


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (None, ToolCallPart("c", "f", "{}", {})),
        ("", ToolCallPart("c", "f", "", {})),
        ('{"a":1}', ToolCallPart("c", "f", '{"a":1}', {"a": 1})),
        ("{", ToolCallPart("c", "f", "{", None, "the arguments are not JSON")),
    ],
)
def test_arguments_of_calls(arguments: Any, part: ToolCallPart) -> None:
    assert Message.ai().add_tool_call("c", "f", arguments).tool_calls == (part,)


def test_parts_that_are_none() -> None:
    with pytest.raises(InvalidPromptError, match="arguments of a tool call must be data"):
        Message.ai().add_tool_call("c", "f", {"a": object()})
    with pytest.raises(InvalidPromptError, match="text must be a str"):
        Message.ai().add_thinking(5)  # type: ignore[arg-type]
    with pytest.raises(InvalidPromptError, match="TextPart is no file"):
        Message.user().add_file(TextPart("a"))  # type: ignore[arg-type]


def test_conversations_with_the_names_of_the_older_library() -> None:
    answer = APIResponse(content=Message.ai().add_tool_call("c1", "f"), finish_reason="tool_calls")
    conversation = Conversation().user("a").ai("b")
    assert conversation.with_message(Message.user("c")).with_response(answer) is conversation
    conversation.with_tool_result("c1", "d").with_tool_results([("c2", {"e": 1})])
    assert [message.role for message in conversation] == ["user", "assistant", "user", "assistant", "tool", "tool"]
    assert conversation[-1].tool_results[0].content == '{"e": 1}'
    assert Conversation.ai("x") == Conversation.assistant("x")


def test_estimates() -> None:
    assert Conversation.user("x" * 8).count_tokens() == 2
    assert Conversation.user("x" * 8).count_tokens(max_new_tokens=5) == 7


def test_a_printed_conversation(capsys: pytest.CaptureFixture[str]) -> None:
    conversation = Conversation.system("Be\nbrief.").add(
        Message("user", Message.user("é\x1b[2J", image=PNG).parts, "Ann")
    )
    conversation.add(Message.ai("x" * 13).add_thinking("hm").add_tool_call("c1", "look", {"a": 1}))
    conversation.add(Message.ai().add_tool_call("c2", "look", "{"))
    conversation.tool_result("c1", "no", is_error=True, images="https://a.test/b.png")
    conversation.print(max_text_length=11, indent=1)
    assert capsys.readouterr().out.splitlines() == [
        "system:",
        " Be",
        " brief.",
        "user (Ann):",
        " é\\x1b[2J",
        " <image image/png, 13 bytes>",
        "assistant:",
        " xxxxxxxxxxx... [2 more characters]",
        " reasoning: hm",
        " calls look (c1): {",
        '  "a": 1',
        " }",
        "assistant:",
        " calls look (c2): {",
        "tool:",
        " error of c1: no",
        " <image of unknown type>: https://a.t... [9 more characters]",
    ]
