"""Where an awaited stream prints: whatever the file does, the answer arrives."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from typing import Any

import pytest

from client.hooks.exceptions import EVERY_EXCEPTION
from lm_deluge import LLMClient
from lm_deluge.client.echo import EchoWriter
from lm_deluge.simulator import Simulator
from loopback import DONE, USAGE, Loopback, answer, finish, text

ODD = 'Zoë → 日本語 😀 "x"\n'


class Failing(io.StringIO):
    """A file that raises when it is written to, or flushed."""

    def __init__(self, error: BaseException, where: str) -> None:
        super().__init__()
        self.error = error
        self.where = where
        self.calls = 0

    def write(self, text: str) -> int:
        self.calls += 1
        if self.where == "write":
            raise self.error
        return super().write(text)

    def flush(self) -> None:
        if self.where == "flush":
            raise self.error


@pytest.mark.parametrize("where", ["write", "flush"])
@pytest.mark.parametrize("name", EVERY_EXCEPTION)
async def test_a_file_that_fails_goes_quiet(name: str, where: str) -> None:
    file = Failing(EVERY_EXCEPTION[name], where)
    async with Simulator(ODD) as sim, LLMClient("gpt-4o", base_url=sim.base_url, api_key="k") as client:
        response = await client.stream("Hi", echo=file)
    assert response.completion == ODD
    assert file.calls == 1 + (name == "UnicodeEncodeError" and where == "write")


ENCODED = {
    "ascii": 'Zo? ? ??? ? "x"\n',
    "cp1252": 'Zoë ? ??? ? "x"\n',
    "latin-1": 'Zoë ? ??? ? "x"\n',
    "cp932": 'Zo? → 日本語 ? "x"\n',
    "utf-8": ODD,
    "utf-16": ODD,
}


@pytest.mark.parametrize("encoding", ENCODED)
async def test_characters_that_a_file_does_not_have_are_replaced(encoding: str) -> None:
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding=encoding, newline="")
    async with Simulator(ODD) as sim, LLMClient("gpt-4o", base_url=sim.base_url, api_key="k") as client:
        response = await client.stream("Hi", echo=file)
    assert response.completion == ODD
    assert raw.getvalue().decode(encoding) == ENCODED[encoding]


async def test_half_a_character_is_replaced() -> None:
    raw = io.BytesIO()
    writer = EchoWriter(io.TextIOWrapper(raw, encoding="utf-8"))
    writer.write("a\ud800b")
    writer.write("c")
    assert raw.getvalue() == b"a?bc"


@pytest.mark.parametrize("how", ["None", "closed", "no reader"])
async def test_a_stdout_that_cannot_be_written_to(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    stdout: Any = None
    if how != "None":
        reader, writer = os.pipe()
        os.close(reader)
        stdout = os.fdopen(writer, "w")
        if how == "closed":
            stdout.close()
    monkeypatch.setattr(sys, "stdout", stdout)
    async with (
        Loopback(answer(text("Hello"), text(" you"), finish(), USAGE, DONE)) as server,
        LLMClient("gpt-4o", base_url=server.url, api_key="k") as client,
    ):
        assert (await client.stream("Hi")).completion == "Hello you"
    if how == "no reader":
        with pytest.raises(BrokenPipeError):
            stdout.close()


SCRIPT = """
import asyncio, sys
from lm_deluge import LLMClient
response = asyncio.run(LLMClient("gpt-4o", base_url=sys.argv[1], api_key="k").stream("Hi"))
sys.stderr.write(f"kept {len(response.completion)}")
"""


@pytest.mark.parametrize("how", [">&-", "| true", "| cat >/dev/null"])
def test_a_program_keeps_the_answer_whatever_its_stdout_is(how: str) -> None:
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    with Simulator(ODD).start_in_thread() as sim:
        command = f'"$0" -c "$1" {sim.base_url} {how}'
        shell = ["/bin/sh", "-c", command, sys.executable, SCRIPT]
        run = subprocess.run(shell, env=environment, capture_output=True, timeout=30, check=False)  # noqa: S603
    assert run.stderr.decode().startswith(f"kept {len(ODD)}")
    assert run.stdout == b""
