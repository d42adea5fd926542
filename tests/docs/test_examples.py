"""Every example of the documentation runs unchanged.

The Python blocks of a page run in order in one namespace, with `await` at the top level. `console` blocks are run and
their output is compared. `bash` blocks are run if they call `deluge` and end by themselves.
"""

import ast
import asyncio
import codeop
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from types import FunctionType
from typing import Any

import pytest

from lm_deluge.cli.commands.simulate import simulate
from lm_deluge.simulator import Simulator
from pages import DOCS, PAGES, ROOT, Block, blocks, name_of

BODY = (
    b'data: {"id":"1","model":"gpt-5.4","choices":[{"index":0,"delta":{"content":"Hi"},"finish_reason":"stop"}]}\n\n'
    b"data: [DONE]\n\n"
)
WITH_PYTHON = [page for page in PAGES if blocks(page, "python")]
FOR_REAL = re.compile(r'"simulator"(.*# or )("[^"]+")')
WITH_A_KEY = [page for page in WITH_PYTHON if FOR_REAL.search(page.read_text("utf-8"))]


@pytest.fixture(autouse=True)
def _empty_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recorded.body").write_bytes(BODY)


def run_python(page: Path, found: list[Block]) -> None:
    namespace: dict[str, Any] = {"__name__": "__main__"}
    with asyncio.Runner() as runner:
        for block in found:
            source = "\n" * (block.line - 1) + block.text
            code = compile(source, name_of(page), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
            result = FunctionType(code, namespace)()
            if asyncio.iscoroutine(result):
                runner.run(result)


@pytest.mark.parametrize("page", WITH_PYTHON, ids=name_of)
def test_python_runs_without_a_key(page: Path) -> None:
    run_python(page, blocks(page, "python"))


@pytest.mark.parametrize("block", blocks(ROOT / "README.md", "python"), ids=lambda block: f"line {block.line}")
def test_each_block_of_the_readme_runs_alone(block: Block) -> None:
    run_python(ROOT / "README.md", [block])


@pytest.mark.parametrize("page", WITH_A_KEY, ids=name_of)
def test_python_runs_with_a_key_and_the_model_of_the_comment(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = [block._replace(text=FOR_REAL.sub(r"\2\1\2", block.text)) for block in blocks(page, "python")]
    with Simulator().start_in_thread() as sim:
        monkeypatch.setenv("OPENAI_BASE_URL", sim.base_url)
        monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
        run_python(page, found)
        assert {request.json["model"] for request in sim.requests} >= {"gpt-5.4"}


@pytest.mark.parametrize("page", [page for page in DOCS if page in WITH_PYTHON], ids=name_of)
def test_python_can_be_typed_line_by_line(page: Path) -> None:
    """Check the rules of `python -m asyncio`: a compound statement ends with a blank line and contains none."""
    for block in blocks(page, "python"):
        compiler = codeop.CommandCompiler()
        compiler.compiler.flags |= ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
        typed: list[str] = []
        for line in [*block.text.splitlines(), ""]:
            typed.append(line)
            if compiler("\n".join(typed), f"{name_of(page)}:{block.line}", "single") is not None:
                typed = []
        assert not "".join(typed), f"{name_of(page)}:{block.line} does not end"


def run_shell(command: str, folder: Path) -> str:
    """Run a command as a reader would, with `deluge` in the path and no key; return its stdout."""
    programs = folder / "bin"
    programs.mkdir(exist_ok=True)
    program = programs / "deluge"
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m lm_deluge "$@"\n')
    program.chmod(0o755)
    environment = {
        **os.environ,
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT / "src"),
        "XDG_STATE_HOME": str(folder),
    }
    done = subprocess.run(  # noqa: S603 - the command is from the documentation
        ["/bin/bash", "-e", "-c", command],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def expected(output: str) -> re.Pattern[str]:
    lines = [".*" if line == "..." else re.escape(line) for line in output.splitlines()]
    return re.compile("\n".join(lines), re.DOTALL)


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "console")], ids=name_of)
def test_commands_print_the_output_shown(page: Path, tmp_path: Path) -> None:
    for block in blocks(page, "console"):
        for turn in re.split(r"^\$ ", block.text, flags=re.MULTILINE)[1:]:
            command, _, output = turn.partition("\n")
            printed = run_shell(command, tmp_path)
            assert expected(output.strip("\n")).fullmatch(printed.rstrip("\n")), f"{command}\n{printed}"


def commands(page: Path) -> list[str]:
    lines = [line.partition("  #")[0].strip() for block in blocks(page, "bash") for line in block.text.splitlines()]
    return [line for line in lines if line]


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "bash")], ids=name_of)
def test_commands_run(page: Path, tmp_path: Path) -> None:
    for command in commands(page):
        words = shlex.split(command)
        if words[:2] == ["deluge", "simulate"] and "--list-faults" not in words:
            simulate.make_context("simulate", words[2:])  # only parse the options: the server would not end
        elif words[0] == "deluge":
            run_shell(command, tmp_path)
        else:
            check_command(words)


def check_command(words: list[str]) -> None:
    """Check that the target or package named by an installation command exists; the command itself is not run."""
    assert words[0] in ("make", "pip"), words
    if words[0] == "make":
        targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
        assert words[1] in targets
    else:
        assert words[1] == "install"
        assert words[2].startswith(".")


def test_the_quick_start_of_the_readme_prints_an_answer(capsys: pytest.CaptureFixture[str]) -> None:
    page = ROOT / "README.md"
    run_python(page, blocks(page, "python")[:1])
    printed = capsys.readouterr().out
    assert printed.startswith("## You said: Write a haiku about rivers.")
    assert re.search(r"\n\n\d+ tokens, the first after \d\.\d\d s\n$", printed)
