"""No key and no prompt is ever shown: canaries in every place that can hold a secret, and every fault there is."""

import asyncio
import importlib
import io
import json
import logging
import pickle
import pkgutil
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import msgspec
import pytest
import rich.console
import rich.pretty
import rich.traceback as traceback_of_rich

import lm_deluge
from lm_deluge import LLMClient, Timeouts
from lm_deluge.api_requests.openai import shared_transport, stream_chat
from lm_deluge.client.stream import Stream
from lm_deluge.errors import DelugeError
from lm_deluge.hidden import HidingStruct
from lm_deluge.wire.http import HttpRequest
from loopback import END, HEAD, HELLO, NEXT, Loopback, Step, answer, chunk, data, plain, text
from transport.test_faults import BROKEN, CLOCKS, clocks_for

CANARY = "canary-7f3a9c51d2"
KEY = f"{CANARY}-key"
USER = f"{CANARY}-of-the-user"
PROXY_PASSWORD = f"{CANARY}-of-the-proxy"
PROMPT = "whisper-0b6d44e8 to nobody"
PROMPT_MARK = "whisper-0b6d44e8"
TESTS = str(Path(__file__).parent)

WORDS = f"bad key {KEY}, Bearer {KEY}, {USER}"
ERROR = {"error": {"message": WORDS, "code": KEY, "type": USER, "param": [KEY]}}
ECHOES: dict[str, list[Step]] = {
    "JSON": plain("401 X", json.dumps(ERROR).encode()),
    "flat JSON": plain("400 X", json.dumps({"detail": WORDS, "message": WORDS}).encode()),
    "plain text": plain("500 X", WORDS.encode(), content_type="text/plain"),
    "error page": plain("502 X", f"<title>{WORDS}</title>{WORDS}".encode(), content_type="text/html"),
    "page with status 200": plain("200 OK", f"<title>{WORDS}</title>{WORDS}".encode(), content_type="text/html"),
    "text with status 200": plain("200 OK", WORDS.encode(), content_type="text/x-own"),
    "JSON with status 200": plain("200 OK", json.dumps(ERROR).encode()),
    "other JSON": plain("200 OK", json.dumps({"key": KEY, "user": USER}).encode()),
    "in the stream": answer(data(ERROR)),
    "in the stream, late": answer(text("a"), data(ERROR)),
    "no JSON": answer(text("a"), f"data: {{{WORDS}\n\n".encode()),
    "request id": plain("500 X", b"{}", f"x-request-id: {KEY}"),
    "coding": [HEAD.replace(b"\r\n\r\n", f"\r\ncontent-encoding: {KEY}\r\n\r\n".encode()), chunk(text("a")), END, NEXT],
    "redirect": plain("307 X", b"", f"location: http://{KEY}:{USER}@elsewhere.test/{KEY}"),
    "redirect to nonsense": plain("307 X", b"", f"location: http://[{KEY}"),
    "redirect with another method": plain("302 X", b"", f"location: /{KEY}"),
    "reason": plain(f"500 {KEY}", b"{}"),
    "no HTTP": [f"{KEY} {USER}\r\n\r\n".encode(), "fin"],
    "bad header": [f"HTTP/1.1 200 OK\r\n{KEY}\r\n\r\n".encode(), "fin"],
    "bad chunk": [HEAD, chunk(text("a")), f"{KEY}\r\n".encode(), "fin"],
}
FAULTS = {
    **{name: (steps, CLOCKS["none"]) for name, steps in ECHOES.items()},
    **{f"fault: {name}": (steps, clocks_for(name)) for name, (steps, _, _) in BROKEN.items()},
}


def frames_of(trace: TracebackType | None) -> Iterator[Any]:
    """Yield the frames that are not the test's own."""
    for frame, _ in traceback.walk_tb(trace):
        if not frame.f_code.co_filename.startswith(TESTS):
            yield frame


def family_of(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    waiting = [error]
    while waiting:
        each = waiting.pop()
        if each is not None and id(each) not in seen:
            seen.add(id(each))
            yield each
            waiting += [each.__cause__] if each.__suppress_context__ else [each.__cause__, each.__context__]


def printed_by_rich(error: BaseException) -> str:
    """Return the traceback of the library's frames with local variables, as Rich prints it."""
    console = rich.console.Console(file=io.StringIO(), width=400)
    found = traceback_of_rich.Traceback.extract(
        type(error), error, error.__traceback__, show_locals=True, locals_max_length=50, locals_max_string=2_000
    )
    for stack in found.stacks:
        stack.frames = [frame for frame in stack.frames if not frame.filename.startswith(TESTS)]
    console.print(traceback_of_rich.Traceback(found, show_locals=True, max_frames=0, extra_lines=0))
    return str(console.file.getvalue())  # type: ignore[attr-defined]


def told_by(error: DelugeError, *, with_locals: bool = True) -> dict[str, str]:
    """Return all that an error tells: to readers of messages, of tracebacks with locals, of JSON and of pickles."""
    told = {"dict": json.dumps(error.to_dict()), "pickle": repr(pickle.dumps(error)), "vars": repr(vars(error))}
    told["notes"] = repr(getattr(error, "__notes__", ()))
    told["traceback"] = "".join(traceback.format_exception(error))
    for each in family_of(error):
        name = type(each).__name__
        told[f"{name}: text"] = f"{each!r} {each} {each.args!r}"
        if with_locals:
            told[f"{name}: rich"] = printed_by_rich(each)
        for frame in frames_of(each.__traceback__) if with_locals else ():
            for variable, value in frame.f_locals.items():
                told[f"{name}: {variable} in {frame.f_code.co_qualname}"] = repr(value)
    return told


def holders(told: dict[str, str], mark: str) -> list[str]:
    return [place for place, text in told.items() if mark in text]


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.DEBUG)
    for name in ("asyncio", "aiohttp", "aiohttp.client", "aiohttp.internal", "lm_deluge"):
        caplog.set_level(logging.DEBUG, logger=name)
    return caplog


def client_of(server: Loopback, **options: Any) -> LLMClient:
    own = {
        "api_key": KEY,
        "base_url": server.url,
        "max_attempts": 1,
        "timeouts": CLOCKS["none"],
        "max_event_bytes": 32_768,
    }
    headers = {"x-api-key": USER, "authorization": f"Bearer {KEY}"}
    return LLMClient("gpt-4o", **{**own, "extra_headers": headers, **options})


async def fail_with(steps: list[Step], timeouts: Timeouts) -> tuple[DelugeError, Stream]:
    async with Loopback(steps) as server, client_of(server, timeouts=timeouts) as client:
        stream = client.stream(PROMPT, echo=None)
        with pytest.raises(DelugeError) as caught:
            await stream
        assert server.requests[0][1]["authorization"] == f"bearer {KEY}"
    return caught.value, stream


@pytest.mark.parametrize("name", FAULTS)
def test_no_fault_shows_a_secret(name: str, log: pytest.LogCaptureFixture) -> None:
    error, stream = asyncio.run(fail_with(*FAULTS[name]), debug=True)
    # What a server says back is in the variables that hold what it said.
    told = told_by(error, with_locals=name not in ECHOES)
    plan = stream._call._spec.plan_for("gpt-4o")
    told["objects"] = f"{stream!r} {stream._call!r} {plan!r} {plan.call!r} {plan.request!r} {plan.key!r}"
    told["response"] = json.dumps(stream.response.to_dict())
    told["log"] = log.text
    assert holders(told, CANARY) == []
    assert holders({place: text for place, text in told.items() if place != "pickle"}, PROMPT_MARK) == []
    assert PROMPT_MARK.encode() not in pickle.dumps(error)


async def test_the_function_shows_none_either(monkeypatch: pytest.MonkeyPatch, log: pytest.LogCaptureFixture) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    for name in ("JSON", "in the stream", "in the stream, late", "page with status 200", "reason"):
        async with Loopback(ECHOES[name]) as server:
            with pytest.raises(DelugeError) as caught:
                async for _ in stream_chat("gpt-4o", PROMPT, base_url=server.url, timeouts=Timeouts(first_token=5)):
                    pass
            await shared_transport().close()
            assert server.requests[0][1]["authorization"] == f"bearer {KEY}"
        assert holders(told_by(caught.value, with_locals=False), KEY) == []
    assert CANARY not in log.text


@pytest.mark.parametrize("how", ["refused", "unreachable", "echo"])
def test_a_proxy_s_password_is_not_shown(how: str, unused_tcp_port: int, log: pytest.LogCaptureFixture) -> None:
    async def run() -> DelugeError:
        refusal: list[Step] = [f"HTTP/1.1 407 {KEY}\r\ncontent-length: 0\r\n\r\n".encode(), "fin"]
        async with Loopback(ECHOES["JSON"] if how == "echo" else refusal) as proxy:
            port = unused_tcp_port if how == "unreachable" else proxy.port
            address = "http://127.0.0.1:9/v1" if how == "echo" else "https://127.0.0.1:9/v1"
            options = {"base_url": address, "proxy": f"http://user:{PROXY_PASSWORD}@127.0.0.1:{port}"}
            async with client_of(proxy, **options) as client:
                with pytest.raises(DelugeError) as caught:
                    await client.stream(PROMPT, echo=None)
        return caught.value

    error = asyncio.run(run(), debug=True)
    assert holders({**told_by(error, with_locals=how == "unreachable"), "log": log.text}, CANARY) == []


@pytest.mark.parametrize(
    "options",
    [
        {"api_key": f"{KEY} \n"[:-1] + " x"},
        {"base_url": f"http://{KEY}:{USER}@127.0.0.1/v1"},
        {"base_url": f"http://127.0.0.1/v1?key={KEY}"},
        {"base_url": f"http://[{KEY}/v1"},
        {"extra_headers": {"x": f"{KEY}\r\n"}},
        {"extra_headers": {"x": f"{KEY}\ud800"}},
        {"extra_body": {"x": KEY, "y": object()}},
    ],
    ids=lambda options: next(iter(options)),
)
def test_what_is_refused_is_not_shown(options: dict[str, Any]) -> None:
    with pytest.raises(DelugeError) as caught:
        LLMClient("gpt-4o", **{"api_key": KEY, "base_url": "http://127.0.0.1:9/v1", **options}).stream(PROMPT)
    error = caught.value
    assert (
        CANARY not in f"{error!r} {error} {error.to_dict()} {vars(error)} {''.join(traceback.format_exception(error))}"
    )


def structs_of(base: type) -> Iterator[type]:
    for each in base.__subclasses__():
        yield each
        yield from structs_of(each)


def test_every_struct_that_hides_its_fields_hides_them_from_rich() -> None:
    for module in pkgutil.walk_packages(lm_deluge.__path__, "lm_deluge."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    own = [kind for kind in structs_of(msgspec.Struct) if kind.__module__.startswith("lm_deluge")]
    hiding = [kind for kind in own if "__repr__" in vars(kind)]
    assert len(hiding) >= 5
    assert [kind for kind in hiding if not issubclass(kind, HidingStruct)] == []


def test_rich_prints_what_repr_returns() -> None:
    request = HttpRequest("https://h.test/v1", {"authorization": f"Bearer {KEY}"}, PROMPT.encode())
    assert rich.pretty.pretty_repr({"request": [request]}, max_width=200) == (
        f"{{'request': [HttpRequest(POST https://h.test/v1, {len(PROMPT)} bytes)]}}"
    )


async def test_an_echoed_key_is_not_kept_as_the_request_id() -> None:
    steps = [HEAD.replace(b"\r\n\r\n", f"\r\nx-request-id: {KEY}-1\r\n\r\n".encode()), chunk(HELLO), END, NEXT]
    async with Loopback(steps) as server, client_of(server) as client:
        response = await client.stream("hi", echo=None)
    assert response.request_id == "...-1"
