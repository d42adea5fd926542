"""A server of PostgreSQL on a loopback port, with a database for each test."""

import contextlib
import itertools
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from installed import need

_USER = "deluge"


def _programs() -> Path | None:
    """Return the folder of the newest server; Debian keeps it out of PATH."""
    found = shutil.which("postgres")
    if found is not None:
        return Path(found).resolve().parent
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parts[-3]))
    return folders[-1].parent if folders else None


def _unprivileged() -> int | None:
    """Return the id of a user that may run the server, which refuses to run as root; None: this one may."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name).pw_uid
    return None


class PostgresServer:
    """A running server.

    Args:
        programs: The folder of its programs.
        folder: The folder of its data, with nothing in it.
    """

    def __init__(self, programs: Path, folder: Path) -> None:
        self._programs = programs
        self._folder = folder
        self._owner = _unprivileged()
        self._numbers = itertools.count()
        self.port = 0

    def start(self) -> None:
        if self._owner is not None:
            os.chown(self._folder, self._owner, -1)
        data = str(self._folder / "data")
        self._run("initdb", "--no-sync", "--auth=trust", f"--username={_USER}", "--encoding=UTF8", "-D", data)
        self.port = self._free_port()
        # Nothing that is written has to survive the machine.
        options = f"-c listen_addresses=127.0.0.1 -c port={self.port} -c unix_socket_directories= -c fsync=off"
        self._run("pg_ctl", "start", "-w", "-D", data, "-l", str(self._folder / "log"), "-o", options)

    def stop(self) -> None:
        self._run("pg_ctl", "stop", "-m", "immediate", "-w", "-D", str(self._folder / "data"))

    def restart(self) -> None:
        self._run("pg_ctl", "restart", "-m", "fast", "-w", "-D", str(self._folder / "data"), "-l", "/dev/null")

    def new_database(self) -> str:
        """Return the URL of a database with nothing in it."""
        name = f"ledger_{next(self._numbers)}"
        where = ("-h", "127.0.0.1", "-p", str(self.port), "-U", _USER)
        self._run("createdb", *where, name)
        return self.url(name)

    def url(self, name: str) -> str:
        return f"postgresql://{_USER}@127.0.0.1:{self.port}/{name}"

    def _free_port(self) -> int:
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            return int(sock.getsockname()[1])

    def _run(self, program: str, *arguments: str) -> None:
        done = subprocess.run(  # noqa: S603 - of the folder that was found
            [str(self._programs / program), *arguments],
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE if program != "pg_ctl" else subprocess.DEVNULL,  # the server inherits that of pg_ctl
            cwd=self._folder,
            user=self._owner,
            timeout=60,
        )
        assert done.returncode == 0, (program, done.stderr)


@contextlib.contextmanager
def run_postgres() -> Iterator[PostgresServer]:
    """Run a server until the end of the block."""
    programs = _programs()
    need("postgres", found=programs is not None, how="apt-get install postgresql, or put its programs into PATH")
    assert programs is not None
    with tempfile.TemporaryDirectory(prefix="deluge-postgres-") as folder:
        server = PostgresServer(programs, Path(folder))
        server.start()
        try:
            yield server
        finally:
            server.stop()
