"""The rules of the house that no other tool checks."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "src" / "lm_deluge"
FILES = sorted([*SOURCE.rglob("*.py"), *(ROOT / "scripts").glob("*.py"), *(ROOT / "bench").glob("*.py")])
MOST_LINES_OF_FILE, MOST_LINES_OF_FUNCTION, MOST_RUNGS = 500, 60, 4
VAGUE_NAMES = {"utils", "util", "helpers", "helper", "common", "misc"}


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"))


def rungs(node: ast.If) -> int:
    count = 1
    while len(node.orelse) == 1 and isinstance(node.orelse[0], ast.If):
        node = node.orelse[0]
        count += 1
    return count


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_files_functions_and_ladders_are_small(path: Path) -> None:
    text = path.read_text("utf-8")
    assert len(text.splitlines()) <= MOST_LINES_OF_FILE
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno - node.lineno < MOST_LINES_OF_FUNCTION, node.name
        if isinstance(node, ast.If):
            assert rungs(node) <= MOST_RUNGS, f"line {node.lineno}"


def test_no_file_or_folder_has_a_name_without_a_subject() -> None:
    names = {part.removesuffix(".py") for path in FILES for part in path.relative_to(ROOT).parts}
    assert not names & VAGUE_NAMES


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py")), ids=name_of)
def test_only_commands_print(path: Path) -> None:
    if "cli" in path.relative_to(SOURCE).parts:
        return
    calls = [node for node in ast.walk(tree_of(path)) if isinstance(node, ast.Call)]
    assert not [call.lineno for call in calls if isinstance(call.func, ast.Name) and call.func.id == "print"]


def test_only_one_file_reads_the_environment() -> None:
    readers = {
        name_of(path)
        for path in SOURCE.rglob("*.py")
        if re.search(r"\bos\.(environ|getenv)\b", path.read_text("utf-8"))
        and "cli" not in path.relative_to(SOURCE).parts
    }
    assert readers == {"src/lm_deluge/api_requests/credentials.py"}


def test_no_provider_is_named_outside_its_place() -> None:
    """What a host does differently is data on its row, or lies in the adapters."""
    providers = re.compile(r"""["'](openai|anthropic|groq|xai|deepseek|openrouter|mistral|azure)["']""")
    own_places = {"adapters", "encoders", "cli", "simulator"}
    named = {
        name_of(path)
        for path in SOURCE.rglob("*.py")
        if not own_places & set(path.relative_to(SOURCE).parts) and providers.search(path.read_text("utf-8"))
    }
    assert named == set()


def test_every_public_module_says_what_is_public() -> None:
    silent = []
    for path in SOURCE.rglob("*.py"):
        is_private = path.name.startswith("_") or "cli" in path.relative_to(SOURCE).parts
        names = [node for node in tree_of(path).body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
        if names and not is_private and "__all__" not in path.read_text("utf-8"):
            silent.append(name_of(path))
    assert silent == []


def test_nothing_committed_knows_the_workplace() -> None:
    words = re.compile(r"/work/|/root/|\bagents?'? session|\bissue #?\d", re.IGNORECASE)
    places = [*SOURCE.rglob("*.py"), *(ROOT / "docs").rglob("*.md"), *ROOT.glob("*.md"), ROOT / "Makefile"]
    assert [name_of(path) for path in places if words.search(path.read_text("utf-8"))] == []
