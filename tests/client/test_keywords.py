"""The typed keyword arguments of the client are the options that it takes."""

import inspect

import pytest

from lm_deluge import LLMClient
from lm_deluge.client.call_options import CallOptions
from lm_deluge.client.keywords import BatchKeywords, CallKeywords, ClientKeywords, ProviderBatchKeywords
from lm_deluge.config import ClientOptions, SamplingParams
from lm_deluge.errors import ConfigurationError


def test_the_keywords_of_the_client_are_its_options() -> None:
    assert set(ClientKeywords.__annotations__) == {
        *ClientOptions.__struct_fields__,
        *SamplingParams.__struct_fields__,
    }
    LLMClient("gpt-4o", **dict.fromkeys(("seed", "top_p"), None))


def test_the_keywords_of_a_call_are_its_options() -> None:
    # `extra_body` of a single call is for rows of a batch file, and no argument of a method.
    assert set(CallKeywords.__annotations__) == set(CallOptions._fields) - {"extra_body"}
    for method in (LLMClient.stream, LLMClient.stream_sync):  # whose keywords are spelled out
        own = set(inspect.signature(method).parameters) - {"self", "prompt", "echo"}
        assert own == set(CallKeywords.__annotations__)
    assert set(ProviderBatchKeywords.__annotations__) < set(CallKeywords.__annotations__)
    assert set(BatchKeywords.__annotations__) - set(CallKeywords.__annotations__) == {"progress", "ask_duplicates_once"}


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
