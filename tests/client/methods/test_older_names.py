"""Options and methods of a client under the names of the older lm-deluge (0.0.168)."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from lm_deluge import LLMClient
from lm_deluge.client.older_names import REPLACED_METHODS
from lm_deluge.errors import ConfigurationError
from lm_deluge.simulator import Simulator

SAME: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"model_names": "gpt-5.4"}, {"model": "gpt-5.4"}),
    ({"model_names": ["gpt-5.4", "gpt-4o"]}, {"model": ["gpt-5.4", "gpt-4o"]}),
    ({"fallback_models": ["gpt-4o"]}, {"fallback": ["gpt-4o"]}),
    ({"cache": "answers.sqlite"}, {"local_cache": "answers.sqlite"}),
    ({"cache": None}, {"local_cache": None}),
    ({"progress": "manual"}, {"progress": "plain"}),
    ({"model_weights": "uniform"}, {}),
    ({"stateless_responses": True}, {}),
    ({"stateless_responses": None, "use_responses_api": False}, {}),
    ({"use_responses_api": True}, {"model": "openai-responses:gpt-5.4"}),
    ({"use_responses_api": True, "model": "openai-responses:gpt-5.4"}, {"model": "openai-responses:gpt-5.4"}),
    ({"use_responses_api": True, "model": "muse-spark-1.2"}, {"model": "meta-responses:muse-spark-1.2"}),
]


@pytest.mark.parametrize(("older", "today"), SAME, ids=[str(older) for older, _ in SAME])
def test_an_older_name_means_the_same(older: dict[str, Any], today: dict[str, Any]) -> None:
    older = older if "model_names" in older else {"model": "gpt-5.4", **older}
    one, other = LLMClient(**older), LLMClient(**{"model": "gpt-5.4", **today})
    assert (one.options, one.models) == (other.options, other.models)


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"request_timeout": 30}, r"timeouts=Timeouts\(total=60\)"),
    ({"thinking_budget": 1024}, "reasoning_effort="),
    ({"global_effort": "high"}, "reasoning_effort="),
    ({"task_budget": 20_000}, "max_cost"),
    ({"cache_ttl": "1h"}, "extra_body"),
    ({"strict_tools": False}, r"Tool\(..., strict=True\)"),
    ({"media_resolution": "low"}, "detail="),
    ({"thinking_prefix_mismatch": "error"}, "extra_body"),
    ({"force_local_mcp": True}, "leave it out"),
    ({"name": "mine"}, "leave it out"),
    ({"model_weights": "dynamic"}, "model_weights"),
    ({"stateless_responses": False}, "background=True"),
    ({"use_responses_api": True, "model": "claude-haiku-4-5"}, "anthropic has no Responses API"),
    ({"cache": "system_and_tools"}, "an option of each call"),
    ({"cache": "a.sqlite", "local_cache": "b.sqlite"}, "cache is another name"),
    ({"fallback_models": ["gpt-4o"], "fallback": "gpt-4o"}, "fallback_models is another name"),
    ({"model_names": "gpt-4o"}, "model_names is another name"),
    ({"model": None}, "model"),
]


@pytest.mark.parametrize(("options", "hint"), REFUSED, ids=[str(options) for options, _ in REFUSED])
def test_what_has_no_counterpart_names_what_to_write(options: dict[str, Any], hint: str) -> None:
    with pytest.raises(ConfigurationError, match=hint):
        LLMClient(**{"model": "gpt-5.4", **options})


@pytest.mark.parametrize("name", REPLACED_METHODS)
def test_methods_that_are_left_out_name_what_to_write(name: str) -> None:
    with pytest.raises(AttributeError, match=f"a client has no attribute '{name}'. ") as caught:
        getattr(LLMClient("gpt-5.4"), name)
    assert str(caught.value).endswith(REPLACED_METHODS[name])


def test_other_attributes_are_missing_as_usual() -> None:
    client = LLMClient("gpt-5.4")
    assert not hasattr(client, "no_such_thing")
    with pytest.raises(AttributeError, match=r"no attribute 'no_such_thing'\.$"):
        client.no_such_thing  # type: ignore[attr-defined]  # noqa: B018


async def test_texts_only() -> None:
    async with Simulator({"good": "Hi.", "bad": "Hi."}, faults=[None, "status_400"]) as sim:
        client = LLMClient("openai:good", base_url=sim.base_url, api_key="k", max_attempts=1, max_concurrent_requests=1)
        texts = await client.process_prompts_async(["One?", "Two?"], return_completions_only=True)
        assert texts == ["Hi.", None]


def test_texts_only_without_asyncio() -> None:
    with Simulator("Hi.").start_in_thread() as sim:
        client = LLMClient("openai:m", base_url=sim.base_url, api_key="k")
        assert client.process_prompts_sync(["One?"], return_completions_only=True, show_progress=False) == ["Hi."]
        assert client.process_prompts_sync(["One?"], show_progress=True)[0].completion == "Hi."
        client.close_sync()


@pytest.mark.parametrize(
    ("of_client", "given", "is_shown"),
    [
        ("plain", {}, True),
        ("plain", {"show_progress": False}, False),
        ("plain", {"show_progress": False, "progress": "plain"}, False),
        ("plain", {"show_progress": True}, True),
        ("none", {}, False),
        ("none", {"show_progress": True}, True),
        (None, {"show_progress": True}, True),
        ("none", {"show_progress": True, "progress": "plain"}, True),
    ],
)
async def test_the_display_of_a_batch(
    of_client: Any, given: dict[str, Any], is_shown: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    async with Simulator("Hi.") as sim:
        client = LLMClient("openai:m", base_url=sim.base_url, api_key="k", progress=of_client)
        await client.process_prompts_async(["One?"], **given)
    assert bool(capsys.readouterr().err) == is_shown


async def test_the_queue_of_the_readme() -> None:
    async with Simulator("Hi.") as sim:
        client = LLMClient("openai:m", base_url=sim.base_url, api_key="k")
        assert client.open() is client.open(total=3, show_progress=False) is client
        client.start_nowait("hello there")
        assert [(task_id, response.completion) async for task_id, response in client.as_completed()] == [(1, "Hi.")]
        client.close()  # without await, as there: no warning, which would fail this test
        assert (await client.start("Hi")).completion == "Hi."
        failed = await LLMClient("openai:m", base_url=sim.base_url, api_key="k").start("")
        assert failed.is_error
        await client.close()
        assert sim.open_connections == 0 or await _closed(sim)


async def _closed(sim: Simulator) -> bool:
    for _ in range(200):
        if sim.open_connections == 0:
            return True
        await asyncio.sleep(0.01)
    return False


def test_close_is_a_coroutine_for_asyncio() -> None:
    client = LLMClient("openai:m", api_key="k")
    asyncio.run(client.close())
    closing = client.close()
    closing.close()

    async def in_a_task() -> None:
        await asyncio.create_task(client.close())
        await asyncio.wait_for(client.close(), 1)
        await asyncio.gather(client.close(), client.close())

    asyncio.run(in_a_task())
