"""The typed keyword arguments of the client are the options that it takes."""

import inspect
from typing import Any

import pytest

from lm_deluge import LLMClient
from lm_deluge.agents.options import LoopOptions
from lm_deluge.client.call_options import CallOptions
from lm_deluge.client.keywords import (
    AgentKeywords,
    AnswerKeywords,
    BatchKeywords,
    CallKeywords,
    ClientKeywords,
    LoopKeywords,
    ProviderBatchKeywords,
    SamplingKeywords,
    StreamKeywords,
)
from lm_deluge.config import ClientOptions, SamplingParams
from lm_deluge.errors import ConfigurationError
from lm_deluge.simulator import Simulator


def test_the_keywords_of_the_client_are_its_options() -> None:
    assert set(ClientKeywords.__annotations__) == {
        *ClientOptions.__struct_fields__,
        *SamplingParams.__struct_fields__,
    }
    LLMClient("gpt-4o", **dict.fromkeys(("seed", "top_p"), None))


def test_the_keywords_of_a_call_are_its_options() -> None:
    # `extra_body` of a single call is for rows of a batch file, and no argument of a method.
    sampling = set(SamplingParams.__struct_fields__)
    assert set(SamplingKeywords.__annotations__) == sampling
    loop = set(LoopOptions.__struct_fields__)
    assert set(LoopKeywords.__annotations__) == loop
    assert set(CallKeywords.__annotations__) - sampling - loop == set(CallOptions._fields) - {
        *("extra_body", "sampling", "loop", "collect")  # `collect` is none of streams
    }
    further = set(StreamKeywords.__annotations__) - sampling
    for method in (LLMClient.stream, LLMClient.stream_sync):  # whose first keywords are spelled out
        own = set(inspect.signature(method).parameters) - {"self", "prompt", "echo", "smooth", "sampling"}
        assert own | further == set(CallKeywords.__annotations__) - sampling
    for method in (LLMClient.run_agent_loop, LLMClient.process_agent_loops_async):
        own = set(inspect.signature(method).parameters) & loop
        assert own | set(AgentKeywords.__annotations__) | {"tools", "run_tools"} == set(CallKeywords.__annotations__)
    assert set(ProviderBatchKeywords.__annotations__) < set(CallKeywords.__annotations__)
    of_a_batch = {"progress", "ask_duplicates_once"}
    assert set(BatchKeywords.__annotations__) - set(CallKeywords.__annotations__) == {
        *of_a_batch,
        *("collect", "journal", "retry_failed"),
    }
    spelled_out = set(inspect.signature(LLMClient.answers).parameters) - {"self", "prompts", "ids", "options"}
    assert set(AnswerKeywords.__annotations__) | spelled_out == set(BatchKeywords.__annotations__)


def test_an_unknown_keyword_of_a_call_names_the_nearest_one() -> None:
    client = LLMClient("gpt-4o", api_key="k")
    with pytest.raises(ConfigurationError, match="Did you mean max_cost"):
        client.stream_many(["Hi"], max_costs=1)  # type: ignore[call-arg]
    with pytest.raises(ConfigurationError, match="Did you mean progress"):
        client.process_prompts_sync(["Hi"], progres="none")  # type: ignore[call-arg]


def test_a_batch_of_the_provider_takes_no_budget(tmp_path) -> None:
    client = LLMClient("gpt-4o", api_key="k")
    with pytest.raises(ConfigurationError, match="provider_batch takes no max_cost"):
        client.provider_batch(["Hi"], journal=tmp_path / "journal", max_cost=1.0)


HINTS = {
    "max_tokens": "Did you mean max_new_tokens?",
    "max_completion_tokens": "Did you mean max_new_tokens?",
    "model": "Did you mean prefer_model? It names one of the client's models.",
    "max_retries": "max_attempts is an option of LLMClient. It counts the first request, too",
    "timeout": "timeouts is an option of LLMClient. Write timeouts=Timeouts(total=60), for example.",
    "timeouts": "timeouts is an option of LLMClient.",
    "api_key": "api_key is an option of LLMClient.",
    "response_format": "Did you mean output?",
    "temprature": "Did you mean temperature?",
    "system": "Conversation.system(...)",
    "top_k": "extra_body",
    "stream": "leave it out",
    "zzz": "Known options: ",
}


@pytest.mark.parametrize("name", HINTS)
def test_a_keyword_of_another_library_has_a_hint_everywhere(name: str) -> None:
    client = LLMClient("gpt-4o", api_key="k")
    methods = (client.stream, client.stream_sync, client.start_nowait, client.answers, client.stream_many)
    for method in methods:
        with pytest.raises(ConfigurationError) as caught:
            method("Hi" if "many" not in method.__name__ else ["Hi"], **{name: 1})
        assert f"there is no option {name!r}" in str(caught.value)
        assert HINTS[name] in str(caught.value)
    with pytest.raises(ConfigurationError, match="there is no option"):
        client.process_prompts_sync(["Hi"], **{name: 1})


def test_an_option_of_another_library_has_a_hint_at_the_client() -> None:
    for name, hint in {"max_retries": "max_attempts", "timeout": "timeouts", "rpm": "max_requests_per_minute"}.items():
        with pytest.raises(ConfigurationError, match=f"Did you mean {hint}"):
            LLMClient("gpt-4o", **{name: 1})  # type: ignore[arg-type]


SAMPLED: dict[str, Any] = {
    "temperature": 0.3,
    "top_p": 0.5,
    "max_new_tokens": 7,
    "stop": "END",
    "seed": 3,
    "presence_penalty": 1.0,
    "frequency_penalty": -1.0,
    "reasoning_effort": "low",
    "json_mode": True,
    "logprobs": True,
    "top_logprobs": 2,
    "tool_choice": "none",
    "parallel_tool_calls": False,
    "service_tier": "flex",
    "verbosity": "low",
}


def test_every_sampling_parameter_is_a_keyword_of_every_method() -> None:
    assert set(SAMPLED) == set(SamplingParams.__struct_fields__)
    client = LLMClient("openai-compatible:any", base_url="http://127.0.0.1:9/v1", api_key="k")
    for name, value in SAMPLED.items():
        wanted = getattr(SamplingParams(**{name: value}), name)
        stream = client.stream("Hi", echo=None, tools=[{"name": "look"}], **{name: value})
        assert getattr(stream._call._spec.plan_for("openai-compatible:any").call.params, name) == wanted
        for method in (client.stream_sync, client.stream_many, client.answers):
            method(["Hi"] if method != client.stream_sync else "Hi", tools=[{"name": "look"}], **{name: value})


async def test_a_keyword_wins_over_sampling_params_and_the_client() -> None:
    async with Simulator("Hi.") as sim:
        async with LLMClient("gpt-4o", base_url=sim.base_url, temperature=1.0, json_mode=True, progress=None) as client:
            params = SamplingParams(temperature=0.1, seed=4)
            await client.stream("json", echo=None, sampling_params=params, temperature=0.7)
            await client.process_prompts_async(["json"], temperature=None, json_mode=False)
            async for _ in client.stream_many(["json"], seed=9):
                pass
            await client.wait_for(client.start_nowait("json", top_p=0.5))
        first, second, third, fourth = [request.json for request in sim.requests]
    assert (first["temperature"], first["seed"]) == (0.7, 4)
    assert "temperature" not in second  # an explicit None or False replaces the client's own value
    assert "response_format" not in second
    assert (third["temperature"], third["seed"]) == (1.0, 9)
    assert fourth["top_p"] == 0.5
    with pytest.raises(ConfigurationError, match="temperature=3 is not a number between 0 and 2"):
        LLMClient("gpt-4o", api_key="k").stream("Hi", temperature=3)
