"""Round trips for every wire API: streamed, unstreamed and replayed responses are decoded as the encoded response."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from encoders.answers import comparable, without_raw
from grammar import check_grammar
from lm_deluge import LLMClient
from lm_deluge.adapters.catalog import adapter_names
from lm_deluge.encoders.catalog import encoder_names, find_encoder
from lm_deluge.events import Event
from lm_deluge.models.registry import list_providers
from lm_deluge.response import APIResponse
from lm_deluge.simulator import Script, Simulator
from lm_deluge.testing import decode_body, decode_events, encode_events
from mirrors import find_mirrors
from samples.api_calls import simulated_url

MIRRORS = find_mirrors()
APIS = sorted(MIRRORS)
SETTINGS = settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow])


def comparable_fields(response: APIResponse) -> dict[str, object]:
    """Return the fields of a response that do not depend on its transport."""
    data = {name: getattr(response, name) for name in response.__struct_fields__ if name not in ("stats", "error")}
    data["usage"] = None if response.usage is None else without_raw(response.usage)
    data["citations"] = [(each.url, each.title, each.start, each.end) for each in response.citations]
    return data


def test_every_api_has_a_mirror() -> None:
    assert APIS == encoder_names() == adapter_names()


@pytest.mark.parametrize("api", APIS)
@given(data=st.data())
@SETTINGS
def test_a_stream_is_read_again_event_by_event(api: str, data: st.DataObject) -> None:
    events: list[Event] = data.draw(MIRRORS[api])
    check_grammar(events)
    assert comparable(list(decode_events(api, encode_events(api, events)))) == comparable(events)


@pytest.mark.parametrize("api", APIS)
@given(data=st.data(), size=st.integers(1, 9))
@SETTINGS
def test_a_replay_in_pieces_is_the_same_stream(api: str, data: st.DataObject, size: int) -> None:
    body = b"".join(encode_events(api, data.draw(MIRRORS[api])))
    pieces = [body[at : at + size] for at in range(0, len(body), size)]
    assert list(decode_events(api, pieces)) == list(decode_events(api, body))


@pytest.mark.parametrize("api", APIS)
@given(data=st.data())
@SETTINGS
def test_a_plain_answer_is_the_streamed_one(api: str, data: st.DataObject) -> None:
    events = data.draw(MIRRORS[api])
    plain = decode_body(api, find_encoder(api).encode_response(events))
    assert comparable_fields(plain) == comparable_fields(decode_body(api, encode_events(api, events)))


@pytest.mark.parametrize("api", APIS)
async def test_the_simulator_and_the_client_speak_it_through_a_socket(api: str) -> None:
    row = next(row for row in list_providers() if row.adapter == api and row.id != "simulator")
    script = Script(text="Grüße, 世界!", reasoning="Hm.", tool_calls=[("weather", {"city": "Roma"})])
    async with Simulator(script) as sim:
        client = LLMClient(f"{row.id}:some-model", base_url=simulated_url(sim, row), api_key="test-key")
        tools = [{"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}]
        response = await client.stream("Hi", tools=tools, echo=None)
        await client.close()
    assert response.completion == "Grüße, 世界!"
    assert [(call.name, call.arguments) for call in response.tool_calls] == [("weather", {"city": "Roma"})]
    assert response.finish_reason == "tool_calls"
    assert response.usage is not None
    assert response.usage.output_tokens > 0
    assert not response.usage.estimated
