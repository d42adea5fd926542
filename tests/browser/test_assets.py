"""The files of the page, without a browser: what was vendored, what is loaded, and how large the scripts are."""

import hashlib
import json
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ASSETS = ROOT / "src/lm_deluge/gateway/page/assets"
VENDORED = (ASSETS / "vendor", Path(__file__).parent / "vendor")
SCRIPTS = sorted(ASSETS.glob("scripts/**/*.js"))
STYLES = sorted(ASSETS.glob("styles/*.css"))
INDEX = (ASSETS / "index.html").read_text("utf-8")
MOST_LINES, MOST_LINES_OF_FUNCTION = 500, 40


def named(path: Path) -> str:
    return str(path.relative_to(ASSETS))


@pytest.mark.parametrize("folder", VENDORED, ids=["page", "tests"])
def test_vendored_files_are_those_of_the_record(folder: Path) -> None:
    record = json.loads((folder / "vendor.json").read_text("utf-8"))
    found = {path.name for path in folder.iterdir()} - {"vendor.json"}
    assert found == {name for library in record for name in library["files"]}
    for library in record:
        assert re.fullmatch(r"\d+\.\d+\.\d+", library["version"])
        assert re.fullmatch(r"[0-9a-f]{64}", library["tarball_sha256"])
        for name, digest in library["files"].items():
            assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest, name
        licences = [name for name in library["files"] if name.startswith("LICENSE")]
        assert len(licences) == 1
        words = {"MIT": "Permission is hereby granted", "BSD-3-Clause": "Redistribution and use", "MPL": "Mozilla"}
        text = (folder / licences[0]).read_text("utf-8")
        assert any(kind in library["licence"] and word in text for kind, word in words.items()) or "Apache" in text


def test_the_page_loads_nothing_from_elsewhere() -> None:
    loaded = re.findall(r'(?:src|href)="([^"]+)"', INDEX)
    assert loaded
    assert all(url.startswith("/page/assets/") for url in loaded)
    for url in loaded:
        assert (ASSETS / url.removeprefix("/page/assets/")).is_file()
    for path in [*SCRIPTS, *STYLES]:
        text = path.read_text("utf-8").replace("http://www.w3.org/2000/svg", "")
        assert re.findall(r"""["'(]https?://[a-z]""", text) == [], named(path)


def test_the_page_has_no_inline_script_or_style() -> None:
    assert re.findall(r"<script(?![^>]*\bsrc=)", INDEX) == []
    assert re.findall(r"<style|\sstyle=|\son\w+=", INDEX) == []


def test_all_styles_and_modules_are_used() -> None:
    assert {named(path) for path in STYLES} == set(re.findall(r"styles/\w+\.css", INDEX).__iter__())
    imported = {"scripts/main.js", "scripts/theme_at_start.js"}
    for path in SCRIPTS:
        for target in re.findall(r'from "([^"]+)"', path.read_text("utf-8")):
            found = (path.parent / target).resolve()
            assert found.is_file(), f"{named(path)} imports {target}"
            imported.add(named(found))
    assert {named(path) for path in SCRIPTS} <= imported


def test_one_file_makes_html_of_text() -> None:
    makers = re.compile(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|createContextualFragment|srcdoc|setHTML"
    )
    assert [named(path) for path in SCRIPTS if makers.search(path.read_text("utf-8"))] == ["scripts/text/markdown.js"]
    evaluating = re.compile(r"\beval\(|new Function|setTimeout\(\s*[\"'`]|javascript:")
    assert [named(path) for path in SCRIPTS if evaluating.search(path.read_text("utf-8"))] == []


FUNCTION = re.compile(r"^(?P<indent> *)(?:export )?(?:async )?(?:function\*? \w+|static |get |set |\*?#?\w+ ?)\(.*\{$")


@pytest.mark.parametrize("path", SCRIPTS, ids=named)
def test_scripts_and_their_functions_are_short(path: Path) -> None:
    lines = path.read_text("utf-8").splitlines()
    assert len(lines) <= MOST_LINES
    assert max(map(len, lines)) <= 150
    for number, line in enumerate(lines):
        match = FUNCTION.match(line)
        if match is None:
            continue
        end = next(at for at in range(number, len(lines)) if lines[at].startswith(match["indent"] + "}"))
        assert end - number < MOST_LINES_OF_FUNCTION, line
    assert lines[0].startswith("// "), "a module states what it is for"


def test_every_colour_is_a_token() -> None:
    for path in STYLES:
        if path.name != "tokens.css":
            assert re.findall(r"#[0-9a-fA-F]{3,8}\b(?![-\w])(?=[;\s])", path.read_text("utf-8")) == [], path.name


def test_dark_has_every_colour_of_light() -> None:
    blocks = re.findall(r"\{([^{}]*--page:[^{}]*)\}", (ASSETS / "styles/tokens.css").read_text("utf-8"))
    light, *darks = [dict(re.findall(r"(--[\w-]+):\s*([^;]+);", block)) for block in blocks]
    assert len(darks) == 2
    assert darks[0] == darks[1]
    colours = {name for name, value in light.items() if value.startswith(("#", "rgb", "0 1px"))}
    assert set(darks[0]) == colours


def test_the_wheel_has_the_assets() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    assert settings["tool"]["hatch"]["build"]["targets"]["wheel"] == {"packages": ["src/lm_deluge"]}  # with all files
