"""OpenAI's own SDK works with the simulator's Responses API."""

from __future__ import annotations

import openai
import pytest

from lm_deluge.simulator import Script, Simulator
from simulator.clients.test_openai_sdk import client_of
from simulator.raw_client import TEXT

WEATHER = {
    "type": "function",
    "name": "weather",
    "parameters": {"type": "object", "properties": {}},
    "strict": False,
}


async def test_a_stream() -> None:
    async with Simulator(Script(text=TEXT)) as sim, client_of(sim) as client:
        stream = await client.responses.create(model="gpt-5", input="Hi", stream=True)
        events = [event async for event in stream]
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == TEXT
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert [events[0].type, events[-1].type] == ["response.created", "response.completed"]
    final = events[-1].response
    assert (final.output_text, final.status, final.model) == (TEXT, "completed", "gpt-5")
    assert final.usage.total_tokens == final.usage.input_tokens + final.usage.output_tokens > 0


async def test_the_sdk_puts_a_rich_stream_together() -> None:
    script = Script(
        reasoning="Hm.", text=TEXT, tool_calls=[("weather", {"city": "Genève"}), ("weather", {"city": "R"})]
    )
    async with (
        Simulator(script) as sim,
        client_of(sim) as client,
        client.responses.stream(model="gpt-5", input="Hi", tools=[WEATHER]) as stream,
    ):
        snapshots = [event.snapshot async for event in stream if event.type == "response.output_text.delta"]
        final = await stream.get_final_response()
    assert snapshots[-1] == final.output_text == TEXT
    assert [item.type for item in final.output] == ["reasoning", "message", "function_call", "function_call"]
    assert [piece.text for piece in final.output[0].summary] == ["Hm."]
    assert [item.arguments for item in final.output[2:]] == ['{"city":"Genève"}', '{"city":"R"}']
    assert len({item.call_id for item in final.output[2:]}) == 2


async def test_a_plain_answer() -> None:
    script = Script(text=TEXT, reasoning="Hm.", tool_calls=[("weather", {"city": "Roma"})])
    async with Simulator(script) as sim, client_of(sim) as client:
        answer = await client.responses.create(
            model="gpt-5", input=[{"role": "user", "content": "Hi"}], tools=[WEATHER]
        )
    assert (answer.output_text, answer.status, answer.object) == (TEXT, "completed", "response")
    assert answer.output[-1].name == "weather"
    assert answer.usage.output_tokens > 0


async def test_a_refusal() -> None:
    async with Simulator(Script(refusal="I cannot.")) as sim, client_of(sim) as client:
        answer = await client.responses.create(model="gpt-5", input="Hi")
    assert [piece.refusal for piece in answer.output[0].content] == ["I cannot."]


async def test_an_answer_that_was_cut_short() -> None:
    async with Simulator(Script(text=TEXT, finish_reason="length")) as sim, client_of(sim) as client:
        answer = await client.responses.create(model="gpt-5", input="Hi")
    assert (answer.status, answer.incomplete_details.reason) == ("incomplete", "max_output_tokens")


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        ("status_400", openai.BadRequestError),
        ("status_401", openai.AuthenticationError),
        ("status_404", openai.NotFoundError),
        ("status_429", openai.RateLimitError),
        ("status_500", openai.InternalServerError),
    ],
)
async def test_errors(fault: str, kind: type[openai.APIError]) -> None:
    async with Simulator(faults=fault) as sim, client_of(sim) as client:
        with pytest.raises(kind) as caught:
            await client.responses.create(model="gpt-5", input="Hi")
    assert type(caught.value) is kind


async def test_an_error_in_the_stream() -> None:
    async with Simulator(TEXT, faults="in_band_error_mid") as sim, client_of(sim) as client:
        stream = await client.responses.create(model="gpt-5", input="Hi", stream=True)
        with pytest.raises(openai.APIError, match="The server had an error"):
            async for _ in stream:
                pass


async def test_a_request_that_is_none() -> None:
    async with Simulator() as sim, client_of(sim) as client:
        with pytest.raises(openai.BadRequestError, match=r"Invalid value: 'video' for 'input\[0\].content\[0\].type'"):
            await client.responses.create(model="gpt-5", input=[{"role": "user", "content": [{"type": "video"}]}])


async def test_the_sdk_resumes_and_cancels_a_background_answer() -> None:
    async with Simulator(TEXT) as sim, client_of(sim) as client:
        stream = await client.responses.create(model="gpt-5", input="Hi", stream=True, background=True)
        events = [event async for event in stream]
        response_id = events[0].response.id
        rest = await client.responses.retrieve(response_id, stream=True, starting_after=5)
        assert [event.to_dict() async for event in rest] == [event.to_dict() for event in events[6:]]
        whole = await client.responses.retrieve(response_id)
        assert (whole.output_text, whole.id) == (TEXT, response_id)
        assert (await client.responses.cancel(response_id)).status == "cancelled"
        with pytest.raises(openai.BadRequestError, match="was cancelled"):
            await client.responses.retrieve(response_id)
        with pytest.raises(openai.NotFoundError, match="Response with id 'resp_none' not found"):
            await client.responses.cancel("resp_none")


async def test_answers_without_background_mode_are_not_stored() -> None:
    async with Simulator(TEXT) as sim, client_of(sim) as client:
        answer = await client.responses.create(model="gpt-5", input="Hi")
        with pytest.raises(openai.NotFoundError):
            await client.responses.retrieve(answer.id)
