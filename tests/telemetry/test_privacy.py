"""No text of a prompt or an answer, and no key, is in any span, metric or log line, whatever the provider returns."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Sequence

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lm_deluge import LLMClient
from loopback import DONE, END, HEAD, NEXT, RST, Loopback, Step, chunk, data, finish, plain, text
from telemetry.recorder import without_pauses
from telemetry.test_otel import Exported
from telemetry.test_prometheus import Scraped

KEY = "sk-the-key-of-the-provider"
# Marked, so that a text is recognised wherever it is quoted, and never equals a name.
TEXTS = st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=1, max_size=8).map("zq{}qz".format)


def error(status: str, message: str) -> Sequence[Step]:
    body = json.dumps({"error": {"message": message, "type": message, "code": message, "param": message}})
    return plain(status, body.encode())


def in_the_stream(message: str) -> Sequence[Step]:
    return [HEAD, chunk(data({"error": {"message": message, "type": message, "code": message}})), END, NEXT]


ENDS = ("whole", "reset", "400", "401", "429", "500", "in the stream", "key in the error")


def steps_of(end: str, prompt: str, answer: str) -> Sequence[Step]:
    quoted = f"cannot process {prompt!r}, near {answer!r}"
    if end == "whole":
        return [HEAD, chunk(text(answer), finish(), DONE), END, NEXT]
    if end == "reset":
        return [HEAD, chunk(text(answer)), RST]
    if end == "in the stream":
        return in_the_stream(quoted)
    if end == "key in the error":
        return error("401 X", f"incorrect API key {KEY}")
    return error(f"{end} {prompt}", quoted)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(prompt=TEXTS, answer=TEXTS, end=st.sampled_from(ENDS), is_batch=st.booleans())
async def test_nothing_confidential_is_recorded(prompt: str, answer: str, end: str, is_batch: bool) -> None:
    exported, scraped, written = Exported(), Scraped(), io.StringIO()
    handler = logging.StreamHandler(written)
    handler.format = lambda record: repr(vars(record))  # type: ignore[method-assign]  # with all extra fields
    logger = logging.getLogger("lm_deluge")
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    attempts = 1 if end == "429" else 2  # after a 429 the limiter pauses
    try:
        async with Loopback(steps_of(end, prompt, answer)) as server:
            observers = [exported.observer(), scraped.observer]
            client = LLMClient(
                "gpt-4o", base_url=server.url, api_key=KEY, progress="none", observers=observers, max_attempts=attempts
            )
            async with without_pauses(client):
                if is_batch:
                    await client.process_prompts_async([prompt])
                else:
                    await client.stream(prompt, echo=None).read_to_end()
    except Exception:  # noqa: BLE001 - the error itself may quote the provider
        assert end != "whole"
    finally:
        logger.removeHandler(handler)
        logger.setLevel(logging.NOTSET)
    spans = "".join(span.to_json() for span in exported.spans)
    metrics = str(exported.metrics().values())
    for where in (spans, metrics, scraped.text, written.getvalue()):
        assert "gpt-4o" in where  # something is recorded
        for secret in (prompt, answer, KEY):
            assert secret not in where


def test_the_strategy_finds_what_is_written(caplog: pytest.LogCaptureFixture) -> None:
    """The check itself: a message that is logged as it is would be found."""
    with caplog.at_level(logging.INFO, "lm_deluge"):
        logging.getLogger("lm_deluge").info("zq1qz")
    assert "zq1qz" in caplog.text
