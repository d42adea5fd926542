"""Copy the three libraries of the chat page from npm into the package, with their licences and sha256.

Needs npm. `python scripts/vendor_page.py` writes the pinned versions again; change a version in `LIBRARIES` to update.
The record, `vendor.json`, is compared with the files by `tests/browser/test_assets.py`.
"""

import hashlib
import io
import json
import subprocess
import tarfile
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

FOLDER = Path(__file__).resolve().parent.parent / "src/lm_deluge/gateway/page/assets/vendor"


class Library(NamedTuple):
    """A package of npm: the one file that the page imports, and the name of its copy."""

    name: str
    version: str
    module: str
    copy: str


# Highlight.js is its build with the core and the 36 common languages.
LIBRARIES = (
    Library("marked", "18.2.1", "lib/marked.esm.js", "marked.js"),
    Library("dompurify", "3.5.0", "dist/purify.es.mjs", "dompurify.js"),
    Library("@highlightjs/cdn-assets", "11.12.0", "es/highlight.min.js", "highlight.js"),
)


def main() -> None:
    """Write the copies and their record."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    record = [copy(library) for library in LIBRARIES]
    (FOLDER / "vendor.json").write_text(json.dumps(record, indent=2) + "\n", "utf-8")


def copy(library: Library) -> dict[str, Any]:
    """Copy the module and the licence of a library, and return its row of the record."""
    tarball = packed(library)
    with tarfile.open(fileobj=io.BytesIO(tarball)) as archive:
        manifest = json.loads(member(archive, "package.json"))
        licence_name = f"LICENSE-{library.copy.removesuffix('.js')}.txt"
        contents = {library.copy: member(archive, library.module), licence_name: member(archive, "LICENSE")}
    for name, content in contents.items():
        (FOLDER / name).write_bytes(content)
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
