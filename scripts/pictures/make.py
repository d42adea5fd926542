"""Make the pictures of the documentation from the real commands: `make pictures`, or with the names of some of them.

The answers are those of the simulator, and each picture shows its name. `inputs.json` beside the pictures records what
they were made from; a test compares that with the present files.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path

import page_picture
import picture_inputs
from terminal_picture import Terminal, drawn

MOST_BYTES = 100_000  # of a picture: a page with all of them loads in a second at 3 Mbit/s
PROMPTS = 120  # at 40 calls at a time some are done while others run


def chat(folder: Path, environment: dict[str, str]) -> dict[str, bytes]:
    """Return the picture of a chat in a terminal, while an answer arrives."""
    terminal = Terminal(folder, environment, columns=84, rows=32)
    try:
        terminal.type("deluge chat -m simulator\r")
        terminal.wait_for(r"\n>$")
        terminal.type("How do I take a stream in Python?\r")
        terminal.wait_for(r"What to try next:[^`]+?simulator · writing")
        return {"chat.svg": drawn(terminal.screen, "deluge chat, answered by the simulator").encode()}
    finally:
        terminal.close()


def batch(folder: Path, environment: dict[str, str]) -> dict[str, bytes]:
    """Return the picture of two batches: one that has ended, and one that runs."""
    lines = [json.dumps({"id": str(number), "prompt": f"Describe river {number}."}) for number in range(PROMPTS)]
    (folder / "prompts.jsonl").write_text("\n".join(lines) + "\n", "utf-8")
    (folder / "few.jsonl").write_text("\n".join(lines[:40]) + "\n", "utf-8")
    terminal = Terminal(folder, environment, columns=84, rows=16)
    try:
        terminal.type("deluge batch few.jsonl few-answers.jsonl -m simulator\r")
        terminal.wait_for(r"40 answered(.|\n)*\n\$$")
        terminal.type("deluge batch prompts.jsonl answers.jsonl -m simulator --limit-concurrency 40\r")
        terminal.wait_for(rf"\n(4[1-9]|[5-9]\d)/{PROMPTS} ")
        return {"batch.svg": drawn(terminal.screen, "deluge batch, answered by the simulator").encode()}
    finally:
        terminal.close()


MAKERS = {"chat": chat, "batch": batch, "page": page_picture.page_pictures}


def environment_of(folder: Path) -> dict[str, str]:
    """Return an environment without keys and settings of the user, with `deluge` in the path."""
    programs = folder / "bin"
    programs.mkdir()
    (programs / "deluge").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m lm_deluge "$@"\n', "utf-8")
    (programs / "deluge").chmod(0o755)
    return {
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(picture_inputs.ROOT / "src"),
        "HOME": str(folder),
        "XDG_STATE_HOME": str(folder / "state"),
        "LC_ALL": "C.UTF-8",
    }


def main(names: list[str]) -> None:
    """Make the pictures and record what they were made from."""
    picture_inputs.FOLDER.mkdir(exist_ok=True)
    for name in names or MAKERS:
        if name == "page" and not (page_picture.BROWSER and page_picture.DRIVER):
            sys.exit("The page needs Chromium: apt-get install --no-install-recommends chromium chromium-driver")
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            made = MAKERS[name](Path(folder), environment_of(Path(folder)))
        for file, content in made.items():
            if len(content) > MOST_BYTES:
                sys.exit(f"{file} has {len(content):,} bytes, more than {MOST_BYTES:,}.")
            (picture_inputs.FOLDER / file).write_bytes(content)
            print(f"{file}: {len(content):,} bytes")
        picture_inputs.record(list(made))


if __name__ == "__main__":
    main(sys.argv[1:])
