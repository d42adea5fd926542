"""Copy the libraries of the chat page, and the one of its tests, from npm, with their licences and sha256.

Needs npm. `python scripts/vendor_page.py` writes the pinned versions again; change a version in `LIBRARIES` to update.
The records, `vendor.json`, are compared with the files by `tests/browser/test_assets.py`.
"""

import hashlib
import io
import json
import subprocess
import tarfile
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parent.parent
PAGE, TESTS = ROOT / "src/lm_deluge/gateway/page/assets/vendor", ROOT / "tests/browser/vendor"


class Library(NamedTuple):
    """A package of npm: the one file that the page imports, and the name of its copy."""

    name: str
    version: str
    module: str
    copy: str


# Highlight.js is its build with the core and the 36 common languages. axe-core checks accessibility in the tests.
LIBRARIES = {
    PAGE: (
        Library("marked", "18.2.1", "lib/marked.esm.js", "marked.js"),
        Library("dompurify", "3.5.0", "dist/purify.es.mjs", "dompurify.js"),
        Library("@highlightjs/cdn-assets", "11.12.0", "es/highlight.min.js", "highlight.js"),
    ),
    TESTS: (Library("axe-core", "4.14.1", "axe.min.js", "axe.js"),),
}


def main() -> None:
    """Write the copies and their records."""
    for folder, libraries in LIBRARIES.items():
        folder.mkdir(parents=True, exist_ok=True)
        record = [copy(library, folder) for library in libraries]
        (folder / "vendor.json").write_text(json.dumps(record, indent=2) + "\n", "utf-8")


def copy(library: Library, folder: Path) -> dict[str, Any]:
    """Copy the module and the licence of a library into a folder, and return its row of the record."""
    tarball = packed(library)
    with tarfile.open(fileobj=io.BytesIO(tarball)) as archive:
        manifest = json.loads(member(archive, "package.json"))
        licence_name = f"LICENSE-{library.copy.removesuffix('.js')}.txt"
        contents = {library.copy: member(archive, library.module), licence_name: member(archive, "LICENSE")}
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return {
        "name": library.name,
        "version": manifest["version"],
        "licence": manifest["license"],
        "tarball_sha256": sha256(tarball),
        "source": library.module,
        "files": {name: sha256(content) for name, content in contents.items()},
    }


def packed(library: Library) -> bytes:
    """Return the tarball of a package; npm verifies its integrity."""
    with tempfile.TemporaryDirectory() as folder:
        command = ["npm", "pack", "--silent", f"{library.name}@{library.version}"]
        subprocess.run(command, cwd=folder, check=True, capture_output=True)
        (tarball,) = Path(folder).glob("*.tgz")
        return tarball.read_bytes()


def member(archive: tarfile.TarFile, name: str) -> bytes:
    """Return a file of a package."""
    file = archive.extractfile(f"package/{name}")
    if file is None:
        raise SystemExit(f"the package has no file {name}")
    return file.read()


def sha256(content: bytes) -> str:
    """Return a digest in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


if __name__ == "__main__":
    main()
