"""What each picture is made from, so that a test finds pictures that are older than what they show."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "docs" / "pictures"
RECORD = FOLDER / "inputs.json"

_PACKAGE = "src/lm_deluge"
_ANSWER = (f"{_PACKAGE}/simulator/demo_answer.py",)
_TERMINAL = (*_ANSWER, "scripts/pictures/terminal_picture.py", f"{_PACKAGE}/cli/render/*.py")
_PAGE = (*_ANSWER, "scripts/pictures/page_picture.py", f"{_PACKAGE}/gateway/page/assets/**/*")

INPUTS = {
    "page-light.webp": _PAGE,
    "page-dark.webp": _PAGE,
    "chat.svg": (*_TERMINAL, f"{_PACKAGE}/cli/chat_session.py", f"{_PACKAGE}/cli/line_editor.py"),
    "batch.svg": (*_TERMINAL, f"{_PACKAGE}/client/batch/progress_display.py", f"{_PACKAGE}/cli/batch/batch_report.py"),
}
"""By the name of a picture, patterns of the files that decide how it looks; `make.py` is one of them for all."""


def digest_of_inputs(name: str) -> str:
    """Return the SHA-256 of the files that a picture is made from, with their names."""
    digest = hashlib.sha256()
    for pattern in ("scripts/pictures/make.py", *INPUTS[name]):
        files = sorted(path for path in ROOT.glob(pattern) if path.is_file())
        if not files:
            raise FileNotFoundError(pattern)
        for path in files:
            digest.update(f"{path.relative_to(ROOT).as_posix()}\0".encode())
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def digest_of_picture(name: str) -> str:
    """Return the SHA-256 of a picture."""
    return hashlib.sha256((FOLDER / name).read_bytes()).hexdigest()


def recorded() -> dict[str, dict[str, str]]:
    """Return what is recorded beside the pictures: for each its digest, and that of its inputs."""
    found: dict[str, dict[str, str]] = json.loads(RECORD.read_text("utf-8"))
    return found


def record(names: list[str]) -> None:
    """Record the digests of pictures that were just made."""
    entries = recorded() if RECORD.exists() else {}
    for name in names:
        entries[name] = {"picture": digest_of_picture(name), "inputs": digest_of_inputs(name)}
    RECORD.write_text(json.dumps(dict(sorted(entries.items())), indent=2) + "\n", "utf-8")
