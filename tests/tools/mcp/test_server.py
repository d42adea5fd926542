"""Tools of MCP servers: in this process, as a program, and over HTTP."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from cli.driver import only_ignoring
from lm_deluge import LLMClient, MCPServer, Tool
from lm_deluge.errors import ConfigurationError, InvalidPromptError, InvalidValueError, MissingExtraError, ToolError
from lm_deluge.prompt.media import Media
from lm_deluge.prompt.parts import AudioPart, ImagePart, TextPart, ToolCallPart
from lm_deluge.simulator import Simulator
from lm_deluge.tools import ServerProgress, ToolRunner

PROGRAM = Path(__file__).with_name("demo_server.py")
IS_QUICK = not os.environ.get("DELUGE_SOAK")
spec = importlib.util.spec_from_file_location("demo_server", PROGRAM)
assert spec is not None
assert spec.loader is not None
demo = importlib.util.module_from_spec(spec)
spec.loader.exec_module(demo)

PLAIN = Path(__file__).with_name("plain_server.py")
needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")
NAMES = ["add", "dotted_name", "weather", "steps", "forever", "media", "fail", "grow"]
PLAIN_NAMES = ["add", "complain", "die", "environment", "forever", "grow", "steps"]


def program(kind: str = "plain", **options: Any) -> MCPServer:
    return MCPServer(sys.executable, "-S", "-E", str(PLAIN), kind, **options)


def call(name: str, /, **arguments: Any) -> ToolCallPart:
    return ToolCallPart("id", name, "", arguments)


def children() -> set[int]:
    """Return the ids of the plain servers that this process has started."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == os.getpid() and str(PLAIN).encode() in _read(path.with_name("cmdline")):
            found.add(int(path.parent.name))
    return found


def other_tasks() -> set[asyncio.Task[Any]]:
    return asyncio.all_tasks() - {asyncio.current_task()}


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


@pytest.fixture(scope="module")
def http_url() -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen([sys.executable, str(PROGRAM), "http", str(port)], stderr=subprocess.DEVNULL)  # noqa: S603
    try:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port}/mcp"
    finally:
        process.kill()
        process.wait()


@pytest.fixture(autouse=True)
async def nothing_is_left() -> AsyncIterator[None]:
    tasks, processes = other_tasks(), children()
    yield
    assert other_tasks() <= tasks
    assert children() <= processes


@pytest.fixture(params=["in process", "program", "http"])
def server(request: pytest.FixtureRequest) -> MCPServer:
    if request.param == "in process":
        return MCPServer(demo.make_server())
    if request.param == "program":
        return MCPServer(sys.executable, str(PROGRAM), "stdio")
    return MCPServer(url=request.getfixturevalue("http_url"))


async def test_every_kind_of_result(server: MCPServer) -> None:
    reported: list[Any] = []
    async with ToolRunner([server]) as runner:
        assert [tool.name for tool in runner.definitions][: len(NAMES)] == NAMES
        add = runner.definitions[0]
        assert isinstance(add, Tool)
        assert add.description == "Add two numbers."
        assert set(add.parameters["properties"]) == {"a", "b"}
        outcome = await runner.run(call("add", a=2, b=3))
        assert (outcome.content, outcome.value, outcome.error) == ("5", 5, None)
        assert (await runner.run(call("dotted_name"))).content == "dotted"
        outcome = await runner.run(call("weather", city="Rome"))
        assert outcome.value == {"city": "Rome", "degrees": 21.5}
        assert "21.5" in str(outcome.content)
        outcome = await runner.run(call("steps"), reported.append)
        assert outcome.content == "done"
        outcome = await runner.run(call("media"))
    assert isinstance(outcome.content, tuple)
    assert [type(part) for part in outcome.content] == [TextPart, ImagePart, AudioPart, TextPart, ImagePart]
    assert outcome.content[1] == ImagePart(Media(data=demo.PNG, media_type="image/png"))
    assert outcome.content[4] == ImagePart(Media(data=demo.PNG, media_type="image/png", filename="c.png"))
    assert reported == [ServerProgress(0, 2, "step 0"), ServerProgress(1, 2, "step 1")]


@pytest.mark.parametrize("server", ["in process", "http"], indirect=True)
async def test_errors_of_tools_are_outcomes(server: MCPServer) -> None:
    async with ToolRunner([server], timeout_s=30) as runner:
        outcome = await runner.run(call("fail", text="no such city"))
        assert isinstance(outcome.error, ToolError)
        assert outcome.error.reason == "failed"
        assert "no such city" in str(outcome.content)
        outcome = await runner.run(call("add", a="x", b=1))
        assert isinstance(outcome.error, ToolError)
        assert "valid integer" in str(outcome.content)
        outcome = await runner.run(ToolCallPart("id", "add", "", [1]))
        assert isinstance(outcome.error, InvalidValueError)
        assert (await runner.run(call("add", a=1, b=1))).value == 2


@pytest.mark.parametrize("server", ["in process", "http"], indirect=True)
async def test_a_timeout_ends_the_call_and_not_the_server(server: MCPServer, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    async with server, ToolRunner([server], timeout_s=0.2) as runner:
        await runner.run(call("add", a=1, b=1))  # whatever the first call takes longer
        outcome = await runner.run(call("forever", mark=str(mark)))
        assert isinstance(outcome.error, ToolError)
        assert outcome.error.reason == "timeout"
        async with asyncio.timeout(10):  # the server learns of it, too
            while not mark.exists():
                await asyncio.sleep(0.01)
        assert (await ToolRunner([server]).run(call("add", a=1, b=1))).value == 2


@pytest.mark.parametrize("make", [lambda: MCPServer(demo.make_server()), program], ids=["2026-07-28", "2025-11-25"])
async def test_a_changed_list_of_tools_changes_the_definitions(make: Any) -> None:
    server = make()
    async with ToolRunner([server]) as runner:
        assert (await runner.run(call("grow"))).content == "grown"
        async with asyncio.timeout(10):
            while "extra" not in [tool.name for tool in runner.definitions]:
                await asyncio.sleep(0.01)
        assert (await runner.run(call("extra"))).content == "extra"


@needs_proc
async def test_a_server_that_dies_is_an_outcome_and_starts_again() -> None:
    async with program() as server, ToolRunner([server]) as runner:
        outcome = await runner.run(call("die"))
        assert isinstance(outcome.error, ToolError)
        assert outcome.error.reason == "server"
        assert "ended during the call" in str(outcome.content)
        assert [tool.name for tool in runner.definitions] == PLAIN_NAMES
        assert (await runner.run(call("add", a=1, b=1))).value == "2"
        for pid in children():  # now between two calls
            os.kill(pid, 9)
        async with asyncio.timeout(10):
            while server.is_connected:
                await asyncio.sleep(0.01)
        assert (await runner.run(call("add", a=1, b=1))).value == "2"


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: MCPServer("no-such-program-4711"), "does not start: there is no such program"),
        (lambda: MCPServer(sys.executable, "-c", "raise SystemExit('no token')"), "it wrote: no token"),
        (lambda: MCPServer(sys.executable, "-c", "input(); print('{}')"), "does not start"),
        (lambda: MCPServer(url="http://127.0.0.1:9/mcp"), "does not start"),
        (lambda: program("deaf", start_timeout_s=0.3), "did not start within 0.3 s"),
        (lambda: MCPServer(sys.executable, "-c", "import os; raise SystemExit(os.environ['TOKEN'])",
                           env={"TOKEN": "hunter2-hunter2"}), r"it wrote: (?!.*hunter2)"),
    ],
)  # fmt: skip
async def test_a_server_that_does_not_start(make: Any, text: str) -> None:
    with pytest.raises(ToolError, match=text) as caught:
        async with make():
            raise AssertionError
    assert caught.value.reason == "server"
    with pytest.raises(ToolError, match=text):
        async with ToolRunner([demo.make_server(), make()]):
            raise AssertionError


async def test_a_program_gets_only_the_variables_that_it_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("API_KEY", "secret")
    async with ToolRunner([program(env={"TOKEN": "abc"})]) as runner:
        assert (await runner.run(call("environment", name="TOKEN"))).content == "abc"
        assert (await runner.run(call("environment", name="API_KEY"))).content == "-"


@needs_proc
async def test_a_server_is_kept_until_its_last_user_leaves() -> None:
    before = children()
    async with program() as server:
        (pid,) = children() - before
        async with ToolRunner([server]), ToolRunner([server]) as runner:
            await runner.run(call("add", a=1, b=1))
        assert children() - before == {pid}
    assert children() == before


async def test_what_a_program_complains_about_does_not_fill_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lm_deluge.tools.mcp.connection._MOST_ERROR_OUTPUT", 1_500)
    async with program() as server:
        sizes = []
        for _ in range(4):
            await server.call_tool("complain")
            assert server._connection is not None
            assert server._connection._error_output is not None
            sizes.append(os.fstat(server._connection._error_output.fileno()).st_size)
    assert sizes == [1_001, 2_002, 1_001, 2_002]


async def test_an_event_loop_that_was_closed_is_no_obstacle() -> None:
    server = program()
    await asyncio.to_thread(asyncio.run, server.__aenter__())
    assert not server.is_connected
    assert (await server.call_tool("add", {"a": 1, "b": 2})).value == "3"
    await server.__aexit__(None, None, None)


@needs_proc
async def test_a_stubborn_program_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mcp.client.stdio.PROCESS_TERMINATION_TIMEOUT", 0.1)
    monkeypatch.setattr("mcp.client.stdio.FORCE_KILL_TIMEOUT", 0.1)
    async with program("lingers") as server:
        assert (await server.call_tool("add", {"a": 1, "b": 2})).value == "3"
        assert children()
    assert not children()


async def test_a_cancellation_at_every_await_leaves_no_task() -> None:
    before = other_tasks()

    async def use() -> None:
        async with ToolRunner([MCPServer(demo.make_server())]) as runner:
            await runner.run(call("add", a=1, b=1))

    for turns in range(0, 2_000, 5 if IS_QUICK else 1):
        task = asyncio.create_task(use())
        for _ in range(turns):
            await asyncio.sleep(0)
            if task.done():
                break
        task.cancel()
        await asyncio.wait([task])
        assert other_tasks() <= before
        if not task.cancelled():
            task.result()
            break
    else:
        raise AssertionError("the call never ends")


async def test_a_cancellation_at_any_time_leaves_no_program() -> None:
    async def use() -> None:
        async with program() as server:
            await server.call_tool("add", {"a": 1, "b": 2})

    started = time.monotonic()
    await use()
    whole = time.monotonic() - started
    for part in range(0, 111, 11 if IS_QUICK else 1):
        task = asyncio.create_task(use())
        await asyncio.wait([task], timeout=whole * part / 100)
        task.cancel()
        await asyncio.wait([task])
        async with asyncio.timeout(5):  # killed, but asyncio does not wait for the end where it is cancelled twice
            while children():
                await asyncio.sleep(0.001)


async def test_tools_of_one_name_need_a_prefix() -> None:
    with pytest.raises(InvalidPromptError, match=r"two tools are named 'add'\. .*prefix="):
        async with ToolRunner([demo.make_server(), demo.make_server()]):
            raise AssertionError
    servers = [MCPServer(demo.make_server(), prefix=prefix) for prefix in ("one_", "two/")]
    async with ToolRunner(servers) as runner:
        assert (await runner.run(call("two_add", a=1, b=2))).value == 3


async def test_from_mcp_gives_tools_that_connect_when_they_are_called() -> None:
    tools = {tool.name: tool for tool in await Tool.from_mcp(demo.make_server())}
    assert await tools["add"].acall(a=1, b=2) == 3
    assert await asyncio.to_thread(tools["add"].call, a=1, b=2) == 3
    with pytest.raises(ConfigurationError, match=r"await tool\.acall"):
        tools["add"].call(a=1, b=2)
    (named, *_) = await Tool.from_mcp("files", command=sys.executable, args=[str(PLAIN)])
    assert await named.acall(a=1, b=2) == "3"
    config = {"mcpServers": {"demo": {"command": sys.executable, "args": [str(PLAIN)]}}}
    assert [tool.name for tool in await Tool.from_mcp_config(config)] == PLAIN_NAMES


async def test_a_connected_server_serves_other_event_loops() -> None:
    async with program() as server:
        add = server.tools[0]
        reported: list[Any] = []

        async def elsewhere() -> Any:
            outcome = await ToolRunner([server]).run(call("steps"), reported.append)
            await asyncio.sleep(0)
            return outcome.content, await add.acall(a=1, b=2)

        assert await asyncio.to_thread(asyncio.run, elsewhere()) == ("done", "3")
        assert [each.progress for each in reported] == [0, 1]


@needs_proc
def test_an_event_loop_that_ends_ends_the_program() -> None:
    async def forget() -> None:
        await program().__aenter__()
        assert children()

    asyncio.run(forget())
    assert not children()


USER = """
import asyncio, sys
from lm_deluge import MCPServer
from lm_deluge.prompt.parts import ToolCallPart
from lm_deluge.tools import ToolRunner

async def main():
    async with ToolRunner([MCPServer(sys.executable, *sys.argv[1:])], timeout_s=None) as runner:
        call = asyncio.create_task(runner.run(ToolCallPart("1", "forever")))
        await asyncio.sleep(0)
        print("running", flush=True)
        await call

asyncio.run(main())
"""


@needs_proc
@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGKILL])
async def test_a_program_ends_with_the_one_that_started_it(ending: signal.Signals) -> None:
    mark = uuid.uuid4().hex
    with only_ignoring([]):
        user = await asyncio.create_subprocess_exec(
            sys.executable, "-c", USER, "-S", "-E", str(PLAIN), mark,
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip
    assert user.stdout is not None
    assert await user.stdout.readline() == b"running\n"
    user.send_signal(ending)
    assert await user.wait() in (-ending, 130)
    async with asyncio.timeout(10):
        while any(mark.encode() in _read(path) for path in Path("/proc").glob("[0-9]*/cmdline")):  # noqa: ASYNC240
            await asyncio.sleep(0.01)


@pytest.mark.skipif(sys.platform == "win32", reason="uvloop is not for Windows")
def test_programs_run_in_other_event_loops_of_asyncio() -> None:
    uvloop = pytest.importorskip("uvloop")

    async def add() -> Any:
        async with program() as server:
            return (await server.call_tool("add", {"a": 1, "b": 2})).value

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(add()) == "3"


async def test_a_connected_server_stands_among_the_tools_of_a_call() -> None:
    with Simulator().start_in_thread() as sim:
        async with LLMClient("gpt-5.4", base_url=sim.base_url, api_key="sk-test") as client:
            server = MCPServer(demo.make_server())
            with pytest.raises(ConfigurationError, match="is not connected"):
                await client.stream("2 + 3?", tools=[server])
            async with server:
                await client.stream("2 + 3?", tools=[server])
    (request,) = sim.requests
    assert [tool["function"]["name"] for tool in request.json["tools"]] == NAMES


@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        ((), {}),
        (("npx",), {"url": "http://x"}),
        ((), {"url": "ftp://x"}),
        (("npx", 3), {}),
        (("npx",), {"start_timeout_s": -1}),
    ],
)
def test_an_address_that_is_none_is_refused(arguments: Any, options: Any) -> None:
    with pytest.raises(ConfigurationError):
        MCPServer(*arguments, **options)


def test_no_representation_shows_a_secret() -> None:
    server = MCPServer(url="http://user:hunter2@x/mcp?key=hunter2", headers={"Authorization": "Bearer hunter2"})
    assert "hunter2" not in f"{server!r} {server._address!r} {server._address.shown}"


async def test_without_the_sdk_a_server_cannot_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mcp", None)
    for name in [name for name in sys.modules if name.startswith("lm_deluge.tools.mcp.")]:
        if name.endswith((".connection", ".transport")):
            monkeypatch.delitem(sys.modules, name)
    with pytest.raises(MissingExtraError, match="Run pip install mcp"):
        async with MCPServer("npx"):
            raise AssertionError


def test_the_sdk_is_imported_on_first_use() -> None:
    code = "import sys, lm_deluge, lm_deluge.tools.runner; lm_deluge.MCPServer('npx'); lm_deluge.Tool.from_function; "
    code += "assert not {'mcp', 'pydantic', 'jsonschema', 'anyio'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)  # noqa: S603
