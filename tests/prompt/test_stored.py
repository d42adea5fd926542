"""Conversations in files and in JSON: what is saved comes back, and what is damaged is named."""

from __future__ import annotations

import errno
import json
import os
import stat
import sys
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given

from lm_deluge import Conversation, Message
from lm_deluge.cli.chat_session import ChatSession
from lm_deluge.cli.options import CommandOptions
from lm_deluge.errors import ConfigurationError, InvalidPromptError
from lm_deluge.prompt.parts import Part, ProviderDataPart, ReasoningPart, TextPart, ToolCallPart
from samples.conversations import CONVERSATIONS, OF_TYPE

PNG = b"\x89PNG\r\n\x1a\n rest"
# Exactly as version 1 wrote it. A later version must still read it, so this text never changes.
VERSION_1 = """{"version": 1, "messages": [
{"role": "system", "parts": [{"type": "text", "text": "Be brief.", "logprobs": []}], "name": null},
{"role": "user", "parts": [{"type": "image", "media": {"media_type": "image/png", "data": "iVBORw0KGgogcmVzdA==",
 "url": null, "file_id": null, "filename": null}, "detail": "low"}], "name": "Ann"},
{"role": "assistant", "parts": [{"type": "reasoning", "text": "Hm."},
 {"type": "provider_data", "provider": "anthropic", "kind": "signature", "data": "c2ln"},
 {"type": "tool_call", "id": "c1", "name": "look", "arguments_text": "{\\"a\\": 1}", "arguments": {"a": 1},
  "arguments_error": null, "custom": false}], "name": null},
{"role": "tool", "parts": [{"type": "tool_result", "tool_call_id": "c1", "content": "no", "media": [],
 "is_error": true}], "name": null}]}"""


def test_the_strategies_know_every_part() -> None:
    assert set(OF_TYPE) == set(get_args(Part))


@given(CONVERSATIONS)
def test_what_is_stored_comes_back(conversation: Conversation) -> None:
    assert Conversation.from_json(conversation.to_json()) == conversation
    assert Conversation.from_json(conversation.to_json().encode()) == conversation
    assert Conversation.from_log(json.loads(json.dumps(conversation.to_log()))) == conversation


@pytest.mark.parametrize("text", ["\ud83d lone", "\udc00", "\u2028 \x00 \U0001f600"], ids=ascii)
def test_text_that_utf8_does_not_have_comes_back(text: str, tmp_path: Path) -> None:
    conversation = Conversation([Message("user", [TextPart(text)])])
    conversation.save(tmp_path / "a.json")
    assert Conversation.load(tmp_path / "a.json") == conversation


def test_numbers_of_arguments_keep_their_value() -> None:
    call = ToolCallPart("c", "f", "", {"big": 2**80, "small": 1e-300, "whole": 1, "float": 1.0})
    (again,) = Conversation.from_json(Conversation([Message("assistant", [call])]).to_json())[0].tool_calls
    assert again == call
    assert [type(value) for value in again.arguments.values()] == [int, float, int, float]


def test_a_file_of_version_1_is_read() -> None:
    conversation = Conversation.from_json(VERSION_1)
    assert [message.role for message in conversation] == ["system", "user", "assistant", "tool"]
    assert conversation[1].images[0].media.data == PNG
    assert conversation[2].parts[:2] == (ReasoningPart("Hm."), ProviderDataPart("anthropic", "signature", "c2ln"))
    assert conversation[2].tool_calls[0].arguments == {"a": 1}
    assert conversation[3].tool_results[0].is_error
    assert json.loads(conversation.to_json()) == json.loads(VERSION_1)


def test_a_file_without_a_version_is_read() -> None:
    """`/save` of `deluge chat` writes such files."""
    data = {"model": "m", "messages": Conversation.user("Hi").to_log()["messages"]}
    assert Conversation.from_json(json.dumps(data)) == Conversation.user("Hi")


def test_the_chat_of_the_command_line_reads_it(tmp_path: Path) -> None:
    conversation = Conversation.user("Hi", image=PNG).assistant("Hello")
    conversation.save(tmp_path / "chat.json")
    settings = CommandOptions(None, None, None, None, None, None, {}, model="simulator")
    assert ChatSession.resume(settings, tmp_path / "chat.json").conversation() == conversation


def test_the_file_is_private_and_replaced_at_once(tmp_path: Path) -> None:
    path = tmp_path / "chat.json"
    path.write_text("old")
    path.chmod(0o644)
    Conversation.user("Hi").save(path)
    assert Conversation.load(str(path)) == Conversation.user("Hi")
    assert [each.name for each in tmp_path.iterdir()] == ["chat.json"]
    if sys.platform != "win32":
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.skipif(sys.platform == "win32", reason="links need a privilege there")
def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "link.json").symlink_to(tmp_path / "chat.json")
    Conversation.user("Hi").save(tmp_path / "link.json")
    assert (tmp_path / "link.json").is_symlink()
    assert Conversation.load(tmp_path / "chat.json") == Conversation.user("Hi")


@pytest.mark.parametrize("fails", ["fsync", "replace"])
def test_a_save_that_fails_leaves_the_old_file(fails: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "chat.json"
    Conversation.user("old").save(path)

    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os if fails == "fsync" else Path, fails, fail)
    with pytest.raises(ConfigurationError, match=r"cannot write 'chat\.json': No space left on device"):
        Conversation.user("new").save(path)
    assert Conversation.load(path) == Conversation.user("old")
    assert [each.name for each in tmp_path.iterdir()] == ["chat.json"]


def test_a_save_is_refused_before_the_file_is_touched(tmp_path: Path) -> None:
    conversation = Conversation.user("a").add(Message("assistant", [ToolCallPart("c", "f", "", object())]))
    with pytest.raises(InvalidPromptError, match=r"messages\[1\] cannot be stored as JSON"):
        conversation.save(tmp_path / "a.json")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("stored", "complaint"),
    [
        (VERSION_1[:70], "no JSON at line 2, column 39"),
        ("", "no JSON at line 1, column 1"),
        (b"\xff\xfe\xfd", "damaged: UnicodeDecodeError"),
        ("[" * 100_000, "damaged: RecursionError"),
        ("[]", "not a stored conversation"),
        ("{}", "not a stored conversation"),
        ('{"version": 2, "messages": []}', "version 2 of the format, and this version reads up to 1"),
        ('{"version": "x", "messages": []}', "version 'x' of the format"),
        (
            VERSION_1.replace('"tool_result"', '"video"'),
            r"Invalid value 'video' - at `\$.messages\[3\].parts\[0\].type`",
        ),
        (VERSION_1.replace('"Be brief."', "5"), r"Expected `str`, got `int` - at `\$.messages\[0\].parts\[0\].text`"),
        (VERSION_1.replace('"tool", "parts"', '"robot", "parts"'), r"'robot' - at `\$.messages\[3\].role`"),
        (VERSION_1.replace("iVBORw0KGgogcmVzdA==", "!"), r"base64.*at `\$.messages\[1\].parts\[0\].media.data`"),
    ],
)
def test_damage_is_named_with_its_place(stored: Any, complaint: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidPromptError, match=complaint):
        Conversation.from_json(stored)
    path = tmp_path / "chat.json"
    path.write_bytes(stored if isinstance(stored, bytes) else stored.encode())
    with pytest.raises(InvalidPromptError, match=f"chat.json: .*{complaint}"):
        Conversation.load(path)


@pytest.mark.parametrize("act", [Conversation.load, Conversation.user("a").save], ids=["load", "save"])
@pytest.mark.parametrize(
    ("path", "complaint"),
    [("no/such.json", "No such file or directory"), ("a\0b", "not a path"), (5, "named by a path, not by int")],
)
def test_paths_that_are_none(act: Any, path: Any, complaint: str) -> None:
    with pytest.raises(ConfigurationError, match=complaint):
        act(path)


OLDER_LOG = {
    "log_version": 2,
    "messages": [
        {"role": "system", "content": [{"type": "text", "text": "Be brief."}]},
        {
            "role": "user",
            "content": [
                {"type": "image", "data": "iVBORw0KGgogcmVzdA==", "media_type": "image/png", "detail": "auto"},
                {"type": "file", "data": "JVBERi0=", "media_type": "application/pdf", "filename": "a.pdf"},
                {"type": "image", "omitted": "media", "tag": "<Image 2x2>"},
            ],
        },
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "content": "Hm.", "raw_payload": {"x": 1}},
                {"type": "tool_call", "id": "c1", "name": "f", "arguments": {"a": "é"}, "built_in": False},
            ],
        },
        {
            "role": "tool",
            "content": [
                {"type": "tool_result", "tool_call_id": "c1", "result": {"ok": True}},
                {
                    "type": "tool_result",
                    "tool_call_id": "c2",
                    "result": [{"type": "text", "text": "see"}, {"type": "image", "data": "iVBORw0KGgogcmVzdA=="}],
                },
            ],
        },
    ],
}


def test_logs_of_the_older_library_are_read() -> None:
    system, user, answer, tool = Conversation.from_log(OLDER_LOG)
    assert (system.role, system.text) == ("system", "Be brief.")
    assert user.images[0].media.data == PNG
    assert (user.files[0].media.filename, user.text) == ("a.pdf", "<Image 2x2>")
    assert (answer.thinking, answer.tool_calls[0].arguments, answer.tool_calls[0].arguments_text) == (
        "Hm.",
        {"a": "é"},
        '{"a": "é"}',
    )
    assert [result.content for result in tool.tool_results] == ['{"ok": true}', "see"]
    assert tool.tool_results[1].media[0].media.data == PNG


@pytest.mark.parametrize(
    ("part", "complaint"),
    [
        ({"type": "video"}, r"messages\[0\].content\[0\].type is 'video'"),
        ({"type": "text"}, r"messages\[0\].content\[0\] is damaged: KeyError"),
        ({"type": "image", "data": "!"}, r"messages\[0\].content\[0\] is damaged"),
        ({"type": "thinking", "content": 5}, r"messages\[0\].content\[0\] is damaged: TypeError"),
        ("text", r"messages\[0\].content\[0\].type is 'None'"),
    ],
)
def test_damaged_logs_of_the_older_library(part: Any, complaint: str) -> None:
    with pytest.raises(InvalidPromptError, match=complaint):
        Conversation.from_log({"log_version": 2, "messages": [{"role": "user", "content": [part]}]})


def test_older_logs_without_a_version() -> None:
    content = [{"type": "thinking", "content": "hm"}, {"type": "text", "text": "a"}]
    (message,) = Conversation.from_log({"messages": [{"role": "assistant", "content": content}]})
    assert (message.thinking, message.text) == ("hm", "a")


@pytest.mark.parametrize(
    ("message", "complaint"),
    [
        ({"role": "robot", "content": []}, r"messages\[0\].role is 'robot'"),
        ({"role": "user", "content": "a"}, r"messages\[0\].content is no list"),
        ("text", r"messages\[0\].role is 'None'"),
    ],
)
def test_damaged_messages_of_older_logs(message: Any, complaint: str) -> None:
    with pytest.raises(InvalidPromptError, match=complaint):
        Conversation.from_log({"log_version": 2, "messages": [message]})
