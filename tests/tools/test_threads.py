"""Threads of sync tools: reused, and never a reason for a program to stay."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import pytest

from lm_deluge.tools import threads
from lm_deluge.tools.threads import run_in_thread


def test_a_thread_is_used_again_and_parallel_jobs_have_their_own() -> None:
    found: list[int] = []
    for _ in range(3):
        done = threading.Event()

        def job(done: threading.Event = done) -> None:
            found.append(threading.get_ident())
            done.set()

        run_in_thread(job)
        assert done.wait(10)
        while not threads._IDLE:
            pass
    assert len(set(found)) == 1
    barrier = threading.Barrier(5)
    together: list[int] = []

    def wait() -> None:
        together.append(threading.get_ident())
        barrier.wait(10)

    for _ in range(4):
        run_in_thread(wait)
    barrier.wait(10)
    assert len(set(together)) == 4


def test_an_idle_thread_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "_IDLE_S", 0.01)
    monkeypatch.setattr(threads, "_IDLE", [])
    found: list[threading.Thread] = []
    done = threading.Event()
    run_in_thread(lambda: (found.append(threading.current_thread()), done.set())[0])
    assert done.wait(10)
    found[0].join(10)
    assert not found[0].is_alive()
    assert threads._IDLE == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_starts_threads_of_its_own() -> None:
    code = """
import os, threading
from lm_deluge.tools.threads import run_in_thread
def work():
    done = threading.Event()
    run_in_thread(done.set)
    assert done.wait(10)
work()
pid = os.fork()
work()
os._exit(0) if pid == 0 else os._exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, timeout=60)  # noqa: S603


def test_a_tool_that_never_returns_does_not_keep_the_program() -> None:
    code = "import threading; from lm_deluge.tools.threads import run_in_thread; run_in_thread(threading.Event().wait)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)  # noqa: S603
