"""The statements of the documentation agree with the code."""

import re
import sys
import tomllib
from pathlib import Path
from typing import Any, get_args

import pytest

import lm_deluge
import lm_deluge.filters
import lm_deluge.simulator
import lm_deluge.testing
import lm_deluge.tools
import lm_deluge.ui
import recordings
from client.test_stream import WAYS_OUT
from lm_deluge import errors, events
from lm_deluge.adapters.catalog import adapter_names
from lm_deluge.adapters.errors import classify_status
from lm_deluge.config import ClientOptions, SamplingParams, Timeouts
from lm_deluge.errors import APIError, DelugeError
from lm_deluge.outputs.reader import OUTPUT_WARNINGS
from lm_deluge.simulator import FAULTS
from pages import DOCS, PAGES, ROOT, name_of, prose, read, table_rows
from transport.test_faults import BROKEN, IN_ORDER

sys.path.insert(0, str(ROOT / "scripts"))
from refresh_docs import refreshed

README = ROOT / "README.md"
ERRORS = ROOT / "docs" / "errors.md"
EVERYTHING = "\n".join(read(page) for page in PAGES)
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]

NAMES = {
    "lm_deluge": lm_deluge.__all__,
    "events": events.__all__,
    "errors": errors.__all__,
    "faults": list(FAULTS),
    "filters": lm_deluge.filters.__all__,
    "simulator": lm_deluge.simulator.__all__,
    "testing": lm_deluge.testing.__all__,
    "tools": lm_deluge.tools.__all__,
    "ui": lm_deluge.ui.__all__,
    "options": ClientOptions.__struct_fields__,
    "sampling": SamplingParams.__struct_fields__,
    "timeouts": Timeouts.__struct_fields__,
}


@pytest.mark.parametrize("where", NAMES)
def test_every_public_name_is_documented(where: str) -> None:
    missing = [name for name in NAMES[where] if not re.search(rf"\b{name}\b", EVERYTHING)]
    assert missing == []


@pytest.mark.parametrize("page", [README, *DOCS], ids=name_of)
def test_generated_tables_are_up_to_date(page: Path) -> None:
    assert refreshed(read(page)) == read(page), "run: python scripts/refresh_docs.py"


def slug(heading: str) -> str:
    """Return the anchor that GitHub generates for a heading."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_link_has_a_target(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if target.startswith(("http://", "https://")):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), target
        if anchor:
            assert anchor in {slug(each) for each in re.findall(r"^#+ (.*)$", read(file), re.MULTILINE)}, target


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_named_file_exists(page: Path) -> None:
    """Check paths in code spans, also after a command; a placeholder such as `<api>` stands for at least one folder."""
    for name in re.findall(r"`(?:[^`\n]* )?((?:src|tests|scripts|docs)/[\w./<>-]+)`", prose(page)):
        assert any(ROOT.glob(re.sub(r"<\w+>", "*", name.rstrip("/")))), name


def test_files_of_the_design_exist() -> None:
    """Check paths below the package; `test_every_named_file_exists` checks paths below the root."""
    named = re.findall(r"`(?!tests/|scripts/|src/|docs/)((?:\w+/)+\w+\.py)`", prose(ROOT / "docs" / "design.md"))
    assert len(named) >= 6
    assert [name for name in named if not (ROOT / "src" / "lm_deluge" / name).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_target_of_make_exists(page: Path) -> None:
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
    assert set(re.findall(r"`make (\w+)`", prose(page))) <= set(targets)


def error_rows() -> dict[str, list[str]]:
    return {row[0].strip("`"): row for row in table_rows(ERRORS, r"`\w+Error`")}


def test_the_table_of_errors_agrees_with_the_classes() -> None:
    rows = error_rows()
    assert sorted(rows) == sorted(errors.__all__)
    for name, row in rows.items():
        kind = getattr(errors, name)
        assert row[2] == ("yes" if kind.retryable else "no"), name
        assert row[3] == kind.scope, name


def test_the_statuses_of_errors_are_those_of_the_code() -> None:
    for name, row in error_rows().items():
        if not issubclass(getattr(errors, name), APIError):
            continue
        for status in re.findall(r"\b[45]\d\d\b", row[1].partition(" are not ")[0].replace("; 501 and 505", "")):
            body = b'{"error":{"code":"insufficient_quota"}}' if name == "QuotaExceededError" else b"{}"
            assert type(classify_status(int(status), {}, body)).__name__ == name, status


def test_reserved_errors_are_not_raised() -> None:
    reserved = [name for name, row in error_rows().items() if row[1].startswith("reserved")]
    code = "".join(path.read_text("utf-8") for path in (ROOT / "src").rglob("*.py") if path.name != "errors.py")
    assert [name for name in reserved if name in code] == []


def outcomes() -> dict[str, set[str]]:
    """Return the outcomes of the faults with each label, from the transport tests."""
    found: dict[str, set[str]] = {}
    for name, outcome in [(name, "whole") for name in IN_ORDER] + [(name, BROKEN[name][1].__name__) for name in BROKEN]:
        for label in re.findall(r"\[(\w+)\]", name):
            found.setdefault(label, set()).add(outcome)
    return found


def test_the_table_of_faults_agrees_with_their_tests() -> None:
    shown: dict[str, set[str]] = {}
    for label, _, ending in table_rows(ERRORS, r"[A-Z]\d+"):
        outcome = "whole" if ending.startswith("whole") else ending.split("`")[1]
        shown.setdefault(label, set()).add(outcome)
    assert shown == outcomes()


def test_every_warning_is_listed() -> None:
    code = "".join(path.read_text("utf-8") for path in (ROOT / "src").rglob("*.py"))
    raised = set(re.findall(r"""(?:(?:_warnings|found)\.append|warnings \+= )\("([a-z_]+)",?\)""", code))
    raised |= set(re.findall(r"""^(?:SNAPSHOT_DIFFERS|WRONG_TYPE) = "([a-z_]+)"$""", code, re.MULTILINE))
    raised |= set(OUTPUT_WARNINGS)
    rows = [row[0].strip("`") for row in table_rows(ERRORS, r"`[a-z_]+`") if len(row) == 2]
    attributes = {name for kind in (DelugeError("x"), APIError("x")) for name in vars(kind)}
    assert {row for row in rows if row not in attributes} == raised


def test_every_event_of_the_union_is_listed() -> None:
    shown = [row[0].strip("`") for row in table_rows(ROOT / "docs" / "events.md", r"`[A-Z]\w+`")]
    assert shown == [kind.__name__ for kind in get_args(events.Event)]


def test_the_figures_of_the_readme_are_right() -> None:
    text = read(README)
    assert f"\n{len(FAULTS)} named faults" in text
    assert f"| {len(IN_ORDER) + len(BROKEN)} of {len(IN_ORDER) + len(BROKEN)}, async and blocking |" in text
    assert f"| {len(WAYS_OUT)} of {len(WAYS_OUT)} |" in text
    assert len(text.splitlines()) <= 150
    assert [line for line in text.splitlines() if line.startswith(("make demo", "make test"))]
    about = [recordings.load(api, name).about for api in adapter_names() for name in recordings.names(api)]
    if about:
        restored = sum(each["framing"] == "reconstructed" for each in about)
        # The expected values of two recordings miss content of their frames; the oracles of their APIs name the two.
        assert f"| {len(about) - 2} of {len(about)}; in the other two, the library decodes more" in text
        assert f"(the framing of {restored} was reconstructed)" in text
        assert f"of {len({each['provider'] for each in about})} hosts and proxies" in text


def names_of(requirements: list[str]) -> set[str]:
    return {re.split(r"[<>=;\[ ]", each)[0] for each in requirements}


def test_every_dependency_has_a_reason() -> None:
    page = ROOT / "docs" / "dependencies.md"
    rows = table_rows(page, r"`[\w-]+`")
    packages = {row[0].strip("`") for row in rows if row[0].strip("`") not in PROJECT["optional-dependencies"]}
    assert packages == names_of(PROJECT["dependencies"])
    extras: dict[str, Any] = {row[0].strip("`"): row for row in rows}
    for extra, requirements in PROJECT["optional-dependencies"].items():
        if extra != "all":
            assert set(re.findall(r"`([\w-]+)`", extras[extra][1])) == names_of(requirements)


def test_changelog_fragments_have_the_right_form() -> None:
    fragments = [path for path in (ROOT / "changelog.d").iterdir() if path.name != "README.md"]
    assert fragments
    for path in fragments:
        assert re.fullmatch(r"\d+\.(added|changed|fixed|removed)\.md", path.name)
        assert path.read_text("utf-8").strip().endswith(".")
    numbers = [path.name.partition(".")[0] for path in fragments]
    assert len(set(numbers)) == len(numbers)


def test_the_changelog_sorts_entries_by_kind() -> None:
    sections = re.split(r"^### ", read(ROOT / "CHANGELOG.md"), flags=re.MULTILINE)[1:]
    kinds = [section.partition("\n")[0] for section in sections]
    assert kinds
    assert set(kinds) <= {"Added", "Changed", "Fixed", "Removed"}
    for section in sections:
        entries = re.split(r"^- ", section.partition("\n## ")[0], flags=re.MULTILINE)[1:]
        assert entries
        assert [entry for entry in entries if not entry.strip().endswith(".")] == []


def test_every_exported_error_is_a_deluge_error() -> None:
    assert all(issubclass(getattr(errors, name), DelugeError) for name in errors.__all__)
