"""Messages, media and tools."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lm_deluge.errors import InvalidPromptError
from lm_deluge.prompt.conversation import Conversation
from lm_deluge.prompt.media import Media, load_media, sniff_media_type
from lm_deluge.prompt.message import Message
from lm_deluge.prompt.parts import ImagePart, RefusalPart, TextPart, ToolCallPart, ToolResultPart
from lm_deluge.prompt.tool import Tool

PNG = b"\x89PNG\r\n\x1a\n rest"


def test_a_message_is_a_value_and_grows_into_another_one() -> None:
    first = Message.user("a")
    second = first.with_text("b").with_image(PNG)
    assert (first.text, second.text) == ("a", "ab")
    assert len(second.parts) == 3
    with pytest.raises(AttributeError):
        first.role = "system"  # type: ignore[misc]


def test_what_a_message_says() -> None:
    call = ToolCallPart("a", "f", "{}")
    message = Message("assistant", (*Message.assistant("Hi", tool_calls=[call]).parts, RefusalPart("No")))
    assert (message.completion, message.thinking, message.refusal) == ("Hi", "", "No")
    assert message.tool_calls == (call,)


def test_a_message_of_all_media() -> None:
    message = Message.user("a", image=PNG, file=b"%PDF-1", audio=b"ID3")
    assert [type(part).__name__ for part in message.parts] == ["TextPart", "ImagePart", "FilePart", "AudioPart"]
    assert message.parts[0] == TextPart("a")


@pytest.mark.parametrize("wrong", [None, 5, b"bytes", ["a"]])
def test_text_that_is_none(wrong: Any) -> None:
    with pytest.raises(InvalidPromptError, match=f"message text must be a str, not {type(wrong).__name__}"):
        Message.system(wrong)


def test_tool_results_are_text_or_json() -> None:
    assert Message.tool_result("a", "x").parts[0].content == "x"
    assert Message.tool_result("a", ["é", None]).parts[0].content == '["é", null]'
    with pytest.raises(InvalidPromptError, match="a tool result must be text or data that can be encoded as JSON"):
        Message.tool_result("a", object())
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(InvalidPromptError, match="a tool result must be text or data that can be encoded as JSON"):
        Message.tool_result("a", loop)


SIGNATURES = {
    "image/png": PNG,
    "image/jpeg": b"\xff\xd8\xff\xe0",
    "image/gif": b"GIF89a",
    "image/webp": b"RIFF\0\0\0\0WEBPVP8 ",
    "audio/wav": b"RIFF\0\0\0\0WAVEfmt ",
    "audio/mpeg": b"\xff\xfb\x90",
    "audio/ogg": b"OggS",
    "audio/flac": b"fLaC",
    "application/pdf": b"%PDF-1.4",
}


@pytest.mark.parametrize(("media_type", "data"), SIGNATURES.items())
def test_media_are_known_by_their_first_bytes(media_type: str, data: bytes) -> None:
    assert sniff_media_type(data) == media_type
    kind = media_type.partition("/")[0].replace("application", "file")
    media = load_media(data, kind=kind)
    assert (media.media_type, media.data) == (media_type, data)
    assert base64.b64decode(media.base64()) == data
    assert media.data_url() == f"data:{media_type};base64,{media.base64()}"


@given(st.binary(max_size=16))
def test_unknown_bytes_have_no_type(data: bytes) -> None:
    assert sniff_media_type(b"\0" + data) in (None, "image/webp", "audio/wav")


def test_where_media_come_from(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(PNG)
    whole = Media(media_type="image/png", data=PNG)
    assert load_media(path, kind="image") == Media(media_type="image/png", data=PNG, filename="a.png")
    assert load_media(str(path), kind="image").filename == "a.png"
    assert load_media(PNG, kind="image") == load_media(bytearray(PNG), kind="image") == whole
    assert load_media(whole.data_url(), kind="image") == whole
    assert load_media(whole, kind="image") is whole
    assert load_media("https://a.test/b.png", kind="image") == Media(url="https://a.test/b.png")


def test_the_bytes_win_over_what_a_data_url_says() -> None:
    url = "data:image/gif;base64," + base64.b64encode(PNG).decode()
    assert load_media(url, kind="image").media_type == "image/png"


def test_files_may_be_of_any_type() -> None:
    assert load_media(b"PK\3\4\0", kind="file").media_type == "application/octet-stream"
    assert load_media(b"a,b\n", kind="file", media_type="text/csv").media_type == "text/csv"
    assert load_media("data:text/plain;base64,YQ==", kind="file").media_type == "text/plain"
    assert load_media("data:;base64,YQA=", kind="file").media_type == "application/octet-stream"


WRONG_MEDIA: dict[str, tuple[Any, str]] = {
    "text as an image": (b"not an image", "these bytes are no image but data of an unknown format"),
    "a PDF as an image": (b"%PDF-1.4", "these bytes are no image but application/pdf"),
    "no bytes": (b"", "the image is empty"),
    "no such file": ("missing/pic.png", "cannot read the image 'pic.png': No such file or directory"),
    "a directory": (".", "cannot read the image '': Is a directory"),
    "a path with a null": ("a\0b", "cannot read the image 'a\\x00b': not a path"),
    "another scheme": ("ftp://a.test/b.png", "the URL of the image is neither http, https nor data"),
    "a file URL": ("file:///etc/passwd", "the URL of the image is neither http, https nor data"),
    "a data URL without base64": ("data:image/png,abc", "a data URL must read data:<media type>;base64,<data>"),
    "a data URL without a comma": ("data:image/png;base64", "a data URL must read data:<media type>;base64,<data>"),
    "damaged base64": ("data:image/png;base64,@@@", "the data URL's base64 text is damaged"),
    "base64 that is not ASCII": ("data:image/png;base64,é", "the data URL's base64 text is damaged"),
    "a number": (5, "int is no image: pass a path, bytes, a URL or a data URL"),
}


@pytest.mark.parametrize("name", WRONG_MEDIA)
def test_an_image_that_is_none(name: str) -> None:
    source, message = WRONG_MEDIA[name]
    with pytest.raises(InvalidPromptError) as caught:
        Message.user("a", image=source)
    assert caught.value.message == message


def test_the_hint_lists_what_is_known() -> None:
    with pytest.raises(InvalidPromptError) as caught:
        Message.user(audio=PNG)
    assert caught.value.message == "these bytes are no audio but image/png"
    assert caught.value.hint == "Known: audio/flac, audio/mpeg, audio/ogg, audio/wav."


def test_tools() -> None:
    schema = {"type": "object", "properties": {}}
    expected = Tool(name="f", description="d", parameters=schema)
    flat = {"name": "f", "description": "d", "parameters": schema}
    assert Tool.from_dict(flat) == Tool.from_dict({"type": "function", "function": flat}) == expected
    assert Tool.from_dict({**flat, "strict": True, "other": 1}).strict is True
    with pytest.raises(InvalidPromptError, match="a tool needs a name"):
        Tool.from_dict({"parameters": schema})


@pytest.mark.parametrize("name", ["", "a b", "é", "x" * 65, "a.b", "a\n", None, 5])
def test_names_that_no_api_takes(name: Any) -> None:
    with pytest.raises(InvalidPromptError, match="is not a valid tool name: 1 to 64 letters, digits, '_' or '-'"):
        Tool(name=name)


@pytest.mark.parametrize("parameters", [{"type": "string"}, [], "x", None])
def test_schemas_that_are_no_object(parameters: Any) -> None:
    with pytest.raises(InvalidPromptError, match="the parameters of tool f are not a JSON schema of type object"):
        Tool(name="f", parameters=parameters)


@pytest.mark.parametrize(
    ("name", "media_type"),
    [
        ("a.py", "text/x-python"),
        ("a.txt", "text/plain"),
        ("a.md", "text/markdown"),
        ("a.csv", "text/csv"),
        ("a.json", "application/json"),
        ("a.HTML", "text/html"),
        ("a.log", "text/plain"),
        ("Makefile", "text/plain"),
    ],
)
def test_text_files(name: str, media_type: str, tmp_path: Path) -> None:
    path = tmp_path / name
    data = "größe = 1\n".encode()
    path.write_bytes(data)
    by_path = load_media(path, kind="file")
    by_bytes = Message.user("a").with_file(data, filename=name).parts[1].media  # type: ignore[union-attr]
    assert (by_path.media_type, by_path.filename, by_path.text) == (media_type, name, "größe = 1\n")
    assert by_bytes == by_path


def test_text_without_a_name() -> None:
    assert load_media(b"a,b\n", kind="file").media_type == "text/plain"
    assert load_media("data:application/octet-stream;base64,YQ==", kind="file").media_type == "text/plain"
    assert load_media(b"\xef\xbb\xbfa", kind="file").text == "a"  # without the byte order mark


@pytest.mark.parametrize(
    ("data", "media_type"),
    [
        (b"%PDF-1", None),  # all of it is ASCII
        (b"a\0b", None),
        ("größe".encode("latin-1"), None),
        ("a".encode("utf-16"), None),
        (b"PK", "application/vnd.openxmlformats-officedocument.wordprocessingml.document"),
    ],
)
def test_what_is_no_text(data: bytes, media_type: str | None) -> None:
    assert load_media(data, kind="file", media_type=media_type).text is None


def test_results_with_failures_and_images(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(PNG)
    (one,) = Message.tool_result("c", "no", is_error=True, images=path).parts
    (two,) = Conversation().tool_result("c", images=[PNG, "https://a.test/1.png"])[0].parts
    image = ImagePart(Media(media_type="image/png", data=PNG, filename="a.png"))
    assert one == ToolResultPart("c", "no", (image,), is_error=True)
    by_bytes, by_url = ImagePart(Media(media_type="image/png", data=PNG)), ImagePart(Media(url="https://a.test/1.png"))
    assert two == ToolResultPart("c", "", (by_bytes, by_url))
