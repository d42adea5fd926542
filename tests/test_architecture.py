"""The rules of the house that no other tool checks."""

import ast
import itertools
import re
import subprocess
import tokenize
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "src" / "lm_deluge"
MODULES = sorted(SOURCE.rglob("*.py"))
FILES = [*MODULES, *sorted((ROOT / "scripts").glob("*.py")), *sorted((ROOT / "bench").glob("*.py"))]
MOST_LINES_OF_FILE, MOST_LINES_OF_FUNCTION, MOST_RUNGS, MOST_FILES_OF_FOLDER = 500, 60, 4, 20
VAGUE_NAMES = {"utils", "util", "helpers", "helper", "common", "misc"}


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"))


def findings(check: Callable[[Path], Iterable[str]], paths: list[Path]) -> dict[str, list[str]]:
    """Return what a check finds in the files, by file. One test of all files takes a tenth of a test for each."""
    return {name_of(path): found for path in paths if (found := list(check(path)))}


def rungs(node: ast.If) -> int:
    count = 1
    while len(node.orelse) == 1 and isinstance(node.orelse[0], ast.If):
        node = node.orelse[0]
        count += 1
    return count


def what_is_large(path: Path) -> Iterator[str]:
    """Yield the file, its functions and its ladders of branches that are too large."""
    text = path.read_text("utf-8")
    if (length := len(text.splitlines())) > MOST_LINES_OF_FILE:
        yield f"{length} lines"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            if node.end_lineno - node.lineno >= MOST_LINES_OF_FUNCTION:
                yield f"line {node.lineno}: {node.name}"
        elif isinstance(node, ast.If) and rungs(node) > MOST_RUNGS:
            yield f"line {node.lineno}: {rungs(node)} branches"


def test_files_functions_and_ladders_are_small() -> None:
    assert findings(what_is_large, FILES) == {}


def test_no_file_or_folder_has_a_name_without_a_subject() -> None:
    names = {part.removesuffix(".py") for path in FILES for part in path.relative_to(ROOT).parts}
    assert not names & VAGUE_NAMES


def prints(path: Path) -> Iterator[str]:
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print":
            yield f"line {node.lineno}"


def test_only_commands_print() -> None:
    assert findings(prints, [path for path in MODULES if "cli" not in path.relative_to(SOURCE).parts]) == {}


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
    own_places = {"adapters", "encoders", "formats", "cli", "simulator", "configuration"}  # names of LiteLLM's file
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


# The wording that house rules ask for, as far as a test can see it: docs/design.md, "Wording".
VAGUE_WORDS = re.compile(
    r"\b(said|says|told|tells|nobody|somebody|whoever|whom|anew|begun|bites?|bitten|purses?|patrol|watchdog|legs?|seams?"
    r"|what (says|asks|makes|is asked|becomes)|who (asks|waits|came|comes|wants|holds|sends|listens)|behind)\b",
    re.IGNORECASE,
)
NOT_VAGUE = re.compile(
    r"behind (a|an|the|one|any|some) [\w-]*\s?(proxy|gateway|firewall|balancer|router)", re.IGNORECASE
)


def prose_of(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the comments, docstrings and messages of a file, each with its line."""
    with path.open("rb") as file:
        for token in tokenize.tokenize(file.readline):
            is_prose = token.type == tokenize.STRING and token.string.count(" ") > 1
            if token.type == tokenize.COMMENT or is_prose:
                yield token.start[0], token.string


def vague_words(path: Path) -> Iterator[str]:
    for start, text in prose_of(path):
        for match in VAGUE_WORDS.finditer(NOT_VAGUE.sub("", text)):
            yield f"line {start + text[: match.start()].count(chr(10))}: {match.group()}"


def test_prose_is_plain() -> None:
    assert findings(vague_words, MODULES) == {}


def is_number(node: ast.expr | None) -> bool:
    """Whether a value is a number, arithmetic over numbers, or a tuple of such."""
    if isinstance(node, ast.Constant):
        return type(node.value) in (int, float)
    if isinstance(node, ast.BinOp):
        return is_number(node.left) and is_number(node.right)
    if isinstance(node, ast.UnaryOp):
        return is_number(node.operand)
    return isinstance(node, ast.Tuple) and bool(node.elts) and all(map(is_number, node.elts))


def numbers_without_reason(path: Path) -> list[str]:
    """Return the constants that have no comment on their line or above, and no docstring below."""
    lines = path.read_text("utf-8").splitlines()
    bodies = [node.body for node in ast.walk(tree_of(path)) if isinstance(node, ast.Module | ast.ClassDef)]
    bare = []
    for body in bodies:
        for node, following in itertools.zip_longest(body, body[1:]):
            if not isinstance(node, ast.Assign | ast.AnnAssign) or not is_number(node.value):
                continue
            target = node.targets[0] if isinstance(node, ast.Assign) else node.target
            name = ast.unparse(target)
            if not re.sub(r"[^A-Za-z]", "", name).isupper():
                continue
            has_docstring = isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant)
            has_comment = "#" in "".join(lines[node.lineno - 1 : node.end_lineno])
            if not (has_docstring or has_comment or lines[node.lineno - 2].lstrip().startswith("#")):
                bare.append(f"line {node.lineno}: {name}")
    return bare


def test_each_number_has_its_reason() -> None:
    assert findings(numbers_without_reason, MODULES) == {}


def test_one_class_name_means_one_thing() -> None:
    places: dict[str, list[str]] = {}
    for path in SOURCE.rglob("*.py"):
        for node in tree_of(path).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places.setdefault(node.name, []).append(name_of(path))
    assert {name: paths for name, paths in places.items() if len(paths) > 1} == {}


def test_no_folder_holds_more_than_twenty_files() -> None:
    command = ["git", "ls-files"]
    tracked = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split()  # noqa: S603
    sizes = Counter(str(Path(name).parent) for name in tracked)
    assert {folder: size for folder, size in sizes.items() if size > MOST_FILES_OF_FOLDER} == {}
