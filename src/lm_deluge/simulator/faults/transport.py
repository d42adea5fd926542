"""Faults of the connection: when the bytes of an answer are sent, and how the answer ends."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from lm_deluge.simulator.faults.fault import SSE, EditPlan, FaultSpec, Parameters
from lm_deluge.simulator.plan import Close, Frame, Hang, Pause, Raw, Repeat, Reset, Step, WirePlan

__all__ = ["TRANSPORT_FAULTS"]

_AFTER: dict[str, Any] = {"after": 3}


def _slow_first_byte(plan: WirePlan, params: Parameters) -> WirePlan:
    return replace(plan, before=(Pause(params["seconds"]), *plan.before))


def _slow_first_token(plan: WirePlan, params: Parameters) -> WirePlan:
    return plan.insert(0, Pause(params["seconds"]))


def _silence(plan: WirePlan, params: Parameters) -> WirePlan:
    seconds = params["seconds"]
    return plan.insert(params["after"], Hang() if seconds is None else Pause(seconds))


def _no_answer(plan: WirePlan, params: Parameters) -> WirePlan:
    return replace(plan, before=(Hang(),))


def _drip(plan: WirePlan, params: Parameters) -> WirePlan:
    data = b"".join(step.data for step in plan.body if isinstance(step, Frame))
    pause = Pause(params["seconds"])
    steps: list[Step] = []
    for at in range(len(data)):
        steps += [Frame(data[at : at + 1]), pause]
    return replace(plan, body=tuple(steps))


def _endless_pings(plan: WirePlan, params: Parameters) -> WirePlan:
    before, _ = plan.split(params["after"])
    return replace(plan, body=(*before, Repeat(b": ping\n\n", params["seconds"])))


def _endless_empty_deltas(plan: WirePlan, params: Parameters) -> WirePlan:
    """Repeat the opening frame, which has no text: the connection has traffic, but the answer makes no progress."""
    before, _ = plan.split(params["after"])
    opening = next((step.data for step in plan.body if isinstance(step, Frame)), b"")
    return replace(plan, body=(*before, Repeat(opening, params["seconds"])))


def _cut(last: Step) -> EditPlan:
    """Return an edit that ends the answer with the step `last`; with `in_frame` also half of the next frame is sent."""

    def edit(plan: WirePlan, params: Parameters) -> WirePlan:
        before, rest = plan.split(params["after"])
        step = rest[0] if rest else None
        partial = (Frame(step.data[: len(step.data) // 2]),) if params["in_frame"] and isinstance(step, Frame) else ()
        return replace(plan, body=(*before, *partial, last))

    return edit


def _before_status_line(step: Step) -> EditPlan:
    def edit(plan: WirePlan, params: Parameters) -> WirePlan:
        return replace(plan, before=(step,))

    return edit


def _short_length(plan: WirePlan, params: Parameters) -> WirePlan:
    """Announce the whole length and close the connection after half of the bytes."""
    data = b"".join(step.data for step in plan.body if isinstance(step, Frame))
    body = (Frame(data[: len(data) // 2]), Close())
    return replace(plan, body=body, framing="length", length=len(data))


def _clean_truncation(plan: WirePlan, params: Parameters) -> WirePlan:
    before, rest = plan.split(params["after"])
    step = rest[0] if rest else None
    partial = (Frame(step.data[: len(step.data) // 2]),) if params["in_frame"] and isinstance(step, Frame) else ()
    return replace(plan, body=(*before, *partial))


def _close_delimited(plan: WirePlan, params: Parameters) -> WirePlan:
    return replace(plan, framing="close")


def _close_truncation(plan: WirePlan, params: Parameters) -> WirePlan:
    return replace(_clean_truncation(plan, params), framing="close")


def _http_10(plan: WirePlan, params: Parameters) -> WirePlan:
    return replace(plan, framing="close", version="HTTP/1.0")


def _no_done(plan: WirePlan, params: Parameters) -> WirePlan:
    """Leave out the last frame, which is the end mark; the finish reason comes before it."""
    return replace(plan, body=plan.body[:-1])


def _never_closes(plan: WirePlan, params: Parameters) -> WirePlan:
    return replace(plan, body=(*plan.body, Hang()))


def _data_after_done(plan: WirePlan, params: Parameters) -> WirePlan:
    """Send deltas a second time, after the end mark."""
    copies = tuple(Frame(step.data) for step in plan.body if isinstance(step, Frame) and step.is_delta)
    return replace(plan, body=(*plan.body, *copies[: params["deltas"]]))


def _redirect(location: Callable[[WirePlan], str]) -> EditPlan:
    def edit(plan: WirePlan, params: Parameters) -> WirePlan:
        target = params["location"] or location(plan)
        return plan.with_document(params["status"], "text/plain", b"over there\n").with_headers(location=target)

    return edit


def _other_origin(plan: WirePlan) -> str:
    # Another name of the same host is another origin, so the simulator still receives a followed redirect.
    return f"http://localhost:{plan.context.port}{plan.context.path}?fault=none"


def _keepalive_race(plan: WirePlan, params: Parameters) -> WirePlan:
    return replace(plan, after="close_on_next_request")


def _huge_header(plan: WirePlan, params: Parameters) -> WirePlan:
    return plan.with_headers(x_huge="x" * params["size"])


def _duplicate_content_length(plan: WirePlan, params: Parameters) -> WirePlan:
    data = b"".join(step.data for step in plan.body if isinstance(step, Frame))
    headers = (*plan.headers, ("content-length", str(len(data) // 2)))
    return replace(plan, body=(Frame(data),), framing="length", headers=headers, after="close")


def _informational(plan: WirePlan, params: Parameters) -> WirePlan:
    early = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </hint>; rel=preload\r\n\r\n"
    return replace(plan, before=(*plan.before, Raw(early)))


def _bad_chunk_size(plan: WirePlan, params: Parameters) -> WirePlan:
    return plan.insert(params["after"], Raw(b"no size\r\n"), Close())


def _buffered(plan: WirePlan, params: Parameters) -> WirePlan:
    data = b"".join(step.data for step in plan.body if isinstance(step, Frame))
    return replace(plan, body=(Pause(params["seconds"]), Frame(data)))


_CUT: dict[str, Any] = {**_AFTER, "in_frame": False}
_REDIRECT: dict[str, Any] = {"status": 307, "location": None}

TRANSPORT_FAULTS: dict[str, FaultSpec] = {
    "slow_first_byte": FaultSpec(
        "no byte of the answer for `seconds`", _slow_first_byte, defaults={"seconds": 5.0}, only_streams=False
    ),
    "slow_first_token": FaultSpec(
        "headers at once, the first delta after `seconds`", _slow_first_token, defaults={"seconds": 5.0}
    ),
    "no_answer": FaultSpec("the connection stays open and nothing is sent", _no_answer, only_streams=False),
    "silence": FaultSpec(
        "nothing is sent for `seconds` (without end by default) on an open connection",
        _silence,
        defaults={**_AFTER, "seconds": None},
        only_streams=False,
    ),
    "drip": FaultSpec("one byte every `seconds`", _drip, defaults={"seconds": 0.05}, only_streams=False),
    "endless_pings": FaultSpec(
        "comments every `seconds`, without end", _endless_pings, defaults={**_AFTER, "seconds": 0.1}, needs=SSE
    ),
    "endless_empty_deltas": FaultSpec(
        "deltas without content every `seconds`, without end",
        _endless_empty_deltas,
        defaults={**_AFTER, "seconds": 0.1},
    ),
    "buffered": FaultSpec(
        "a proxy holds the whole answer back for `seconds`", _buffered, defaults={"seconds": 2.1}, only_streams=False
    ),
    "cut_chunk": FaultSpec(
        "the connection closes before the body ends", _cut(Close()), defaults=_CUT, only_streams=False
    ),
    "reset": FaultSpec(
        "the connection is reset in the middle of the body", _cut(Reset()), defaults=_CUT, only_streams=False
    ),
    "short_length": FaultSpec("the body is shorter than its content-length", _short_length, only_streams=False),
    "empty_reply": FaultSpec(
        "the connection closes without a byte", _before_status_line(Close()), only_streams=False, replaces_answer=True
    ),
    "reset_first": FaultSpec(
        "the connection is reset without a byte", _before_status_line(Reset()), only_streams=False, replaces_answer=True
    ),
    "clean_truncation": FaultSpec(
        "the body ends in order, but the answer is incomplete", _clean_truncation, defaults=_CUT
    ),
    "close_truncation": FaultSpec(
        "an incomplete answer whose body ends when the connection closes", _close_truncation, defaults=_CUT
    ),
    "close_delimited": FaultSpec(
        "a whole answer whose body ends when the connection closes", _close_delimited, only_streams=False
    ),
    "http_10": FaultSpec("a whole answer in HTTP/1.0", _http_10, only_streams=False),
    "no_done": FaultSpec("the end mark is missing, the finish reason is present", _no_done),
    "never_closes": FaultSpec("the body stays open after the end mark", _never_closes),
    "data_after_done": FaultSpec("deltas follow the end mark", _data_after_done, defaults={"deltas": 2}),
    "redirect_other_origin": FaultSpec(
        "a redirect to another origin, or to `location`",
        _redirect(_other_origin),
        defaults=_REDIRECT,
        only_streams=False,
        replaces_answer=True,
    ),
    "redirect_same_origin": FaultSpec(
        "a redirect to the same origin, where the answer is sent",
        _redirect(lambda plan: f"{plan.context.path}?fault=none"),
        defaults=_REDIRECT,
        only_streams=False,
        replaces_answer=True,
    ),
    "redirect_loop": FaultSpec(
        "a redirect to a URL that redirects to itself",
        _redirect(lambda plan: f"{plan.context.path}?fault=redirect_loop"),
        defaults=_REDIRECT,
        only_streams=False,
        replaces_answer=True,
    ),
    "keepalive_race": FaultSpec(
        "a whole answer, but the next request on the connection is not answered", _keepalive_race, only_streams=False
    ),
    "huge_header": FaultSpec(
        "a header of `size` bytes, 70,000 by default", _huge_header, defaults={"size": 70_000}, only_streams=False
    ),
    "duplicate_content_length": FaultSpec(
        "two content-length headers with different values", _duplicate_content_length, only_streams=False
    ),
    "informational": FaultSpec(
        "responses with status 100 and 103 before the answer", _informational, only_streams=False
    ),
    "bad_status_line": FaultSpec(
        "the answer is not HTTP",
        lambda plan, _params: replace(plan, before=(Raw(b"220 mail.example.org ESMTP\r\n"), Close())),
        only_streams=False,
        replaces_answer=True,
    ),
    "bad_chunk_size": FaultSpec("the size of a chunk is not a number", _bad_chunk_size, defaults=_AFTER),
}
