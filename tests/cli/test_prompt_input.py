"""What a command sends: text from a pipe, attachments, schemas."""

import base64
import json
import os
import threading
from pathlib import Path

import pytest

from cli.driver import run, terminal
from lm_deluge.cli.prompt_input import attach, read_prompt, read_schema
from lm_deluge.errors import InvalidPromptError
from lm_deluge.prompt.message import Message
from lm_deluge.prompt.parts import AudioPart, FilePart, ImagePart

PNG = b"\x89PNG\r\n\x1a\n" + bytes(20)


def reach(simulator) -> dict[str, str]:
    return {"OPENAI_API_KEY": "k", "OPENAI_BASE_URL": simulator.base_url}


def prompt_of(simulator) -> object:
    return simulator.requests[-1].json["messages"][-1]["content"]


@pytest.fixture
def stdin(monkeypatch):
    """Replace stdin by a pipe or a file; return the function that fills it."""
    opened = []

    def fill(data: bytes, *, path=None) -> None:
        if path is not None:
            path.write_bytes(data)
            file = path.open()
        else:
            reader, writer = os.pipe()
            threading.Thread(target=lambda: (os.write(writer, data), os.close(writer))).start()
            file = os.fdopen(reader)
        opened.append(file)
        monkeypatch.setattr("sys.stdin", file)

    yield fill
    for file in opened:
        file.close()


@pytest.mark.parametrize("is_file", [False, True])
@pytest.mark.parametrize(
    ("piped", "prompt", "expected"),
    [
        (b"print(1)\n", "explain", "print(1)\n\nexplain"),
        (b"print(1)", "explain", "print(1)\n\nexplain"),
        ("Gr\u00fc\u00dfe\n".encode(), "\u6f22", "Gr\u00fc\u00dfe\n\n\u6f22"),
        (b"", "explain", "explain"),
        (b" \n", "explain", "explain"),
        (b"print(1)\n", None, "print(1)\n"),
        (b"print(1)\n", "-", "print(1)\n"),
        (b"print(1)\n", "", "print(1)\n\n"),
    ],
)
def test_what_is_piped_in_stands_before_the_prompt(stdin, tmp_path, is_file, piped, prompt, expected):
    stdin(piped, path=tmp_path / "in" if is_file else None)
    assert read_prompt(prompt) == expected


def test_dev_null_is_no_pipe(monkeypatch):
    with Path(os.devnull).open() as null:
        monkeypatch.setattr("sys.stdin", null)
        assert read_prompt("explain") == "explain"


def test_an_absent_stdin_is_no_pipe(monkeypatch):
    monkeypatch.setattr("sys.stdin", None)
    assert read_prompt("explain") == "explain"


def test_the_command_joins_both(serve, home):
    simulator = serve("yes")
    done = run("stream", "explain this", home=home, stdin=b"print(1)\n", **reach(simulator))
    assert done.stdout == b"yes", done.stderr
    assert prompt_of(simulator) == "print(1)\n\nexplain this"


def test_a_terminal_is_not_read(serve, home):
    simulator = serve("yes")
    with terminal("stream", "explain this", home=home, **reach(simulator)) as tty:
        assert tty.end() == 0
    assert prompt_of(simulator) == "explain this"


def test_bytes_that_are_no_text_are_refused_with_the_way_to_send_them(serve, home):
    simulator = serve("yes")
    done = run("stream", "what is this?", home=home, stdin=PNG, **reach(simulator))
    assert done.returncode == 2
    assert b"not UTF-8 text" in done.stderr
    assert b"-a -" in done.stderr
    assert simulator.requests == []


def test_an_attachment_from_stdin(serve, home):
    simulator = serve("yes")
    done = run("stream", "what is this?", "-a", "-", home=home, stdin=PNG, **reach(simulator))
    assert done.returncode == 0, done.stderr
    text, image = prompt_of(simulator)
    assert text["text"] == "what is this?"
    assert image["image_url"]["url"] == f"data:image/png;base64,{base64.b64encode(PNG).decode()}"


def test_stdin_is_one_thing_only(serve, home):
    simulator = serve("yes")
    for arguments in (["-", "-a", "-"], ["hi", "-a", "-", "-a", "-"], ["-a", "-"]):
        done = run("stream", *arguments, home=home, stdin=PNG, **reach(simulator))
        assert done.returncode == 2, arguments
    assert simulator.requests == []


@pytest.mark.parametrize(
    ("name", "data", "kind"),
    [
        ("a.bin", PNG, ImagePart),
        ("no_extension", b"\xff\xd8\xff\xe0" + bytes(9), ImagePart),
        ("a.txt", b"RIFF\0\0\0\0WAVEfmt ", AudioPart),
        ("a.png", b"%PDF-1.7\n", FilePart),
        ("a.py", b"print(1)\n", FilePart),
    ],
)
def test_the_kind_of_an_attachment_is_that_of_its_bytes(tmp_path, name, data, kind):
    (tmp_path / name).write_bytes(data)
    part = attach(Message.user("hi"), str(tmp_path / name)).parts[-1]
    assert type(part) is kind
    assert part.media.data == data


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("https://example.com/a.png?size=2", ImagePart),
        ("https://example.com/a.mp3", AudioPart),
        ("https://example.com/a.pdf", FilePart),
    ],
)
def test_the_kind_of_a_url_is_that_of_its_path(url, kind):
    part = attach(Message.user("hi"), url).parts[-1]
    assert (type(part), part.media.url) == (kind, url)


def test_a_url_of_unknown_kind_is_refused():
    with pytest.raises(Exception, match="--image URL or --file URL"):
        attach(Message.user("hi"), "https://example.com/download")


def test_an_attachment_that_cannot_be_read(tmp_path):
    with pytest.raises(InvalidPromptError, match="nowhere"):
        attach(Message.user("hi"), str(tmp_path / "nowhere"))


SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}


def test_a_schema_is_a_file_or_the_text_itself(tmp_path):
    (tmp_path / "schema.json").write_text(json.dumps(SCHEMA))
    assert read_schema(str(tmp_path / "schema.json")) == read_schema(f" {json.dumps(SCHEMA)}") == SCHEMA


@pytest.mark.parametrize("source", ['{"type": ', "{'type': 'object'}", "nowhere.json"])
def test_a_schema_that_is_wrong(source):
    with pytest.raises(Exception, match="schema"):
        read_schema(source)


def test_an_inline_schema_reaches_the_provider(serve, home):
    simulator = serve('{"a": 1}')
    done = run("stream", "hi", "--schema", json.dumps(SCHEMA), home=home, **reach(simulator))
    assert done.returncode == 0, done.stderr
    sent = simulator.requests[0].json["response_format"]["json_schema"]["schema"]
    # OpenAI enforces schemas without optional properties only: a model that leaves it out sends null.
    assert sent["properties"] == {"a": {"anyOf": [SCHEMA["properties"]["a"], {"type": "null"}]}}
