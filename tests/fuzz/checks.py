"""The checks of one input: how it is decoded, and what users do with the response or the error."""

from __future__ import annotations

import json
import math
import pickle

from grammar import check_grammar
from lm_deluge.adapters.adapter import Call
from lm_deluge.adapters.catalog import find_adapter
from lm_deluge.api_requests.answer import settle_answer, usage_of
from lm_deluge.errors import DelugeError
from lm_deluge.events import Event
from lm_deluge.models.rows import ModelRow, ProviderRow
from lm_deluge.prompt.conversation import Conversation
from lm_deluge.response import APIResponse, ResponseBuilder
from lm_deluge.usage import Price

PRICE = Price(
    input=1.25,
    output=10.0,
    cache_read=0.125,
    cache_write=1.5,
    cache_write_1h=2.5,
    reasoning=11.0,
    input_audio=3.0,
    cache_read_audio=0.5,
    output_audio=20.0,
    output_image=40.0,
)
MOST_TOKENS = 2**53  # the largest count that JSON numbers hold without a loss


def call_of(api: str) -> Call:
    row = ProviderRow(id="recording", otel_name="recording", adapter=api, base_url="")
    model = ModelRow(id="recording", name="model-1", provider=row.id, price=PRICE)
    return Call(model=model, provider=row, conversation=Conversation.user("Hi"))


def decode(call: Call, chunks: list[bytes]) -> tuple[list[Event], DelugeError | None]:
    """Return the events of a body and the error, with its partial response."""
    decoder = find_adapter(call.provider.adapter).decoder(call)
    decoder.expect("")
    events: list[Event] = []
    for chunk in chunks:
        events += decoder.feed(chunk)
        if decoder.is_flowing:
            assert not decoder.is_complete
            assert not decoder.is_finished
            assert decoder.error is decoder.failure is None
    events += decoder.close()
    assert decoder.error is not None or decoder.is_finished
    return events, decoder.error


def check(call: Call, chunks: list[bytes]) -> tuple[APIResponse, DelugeError | None]:
    """Return the response and the error of a body, after all checks that hold for any body."""
    events, error = decode(call, chunks)
    check_grammar(events, is_complete=error is None)
    builder = ResponseBuilder()
    builder.add_all(events)
    usage = usage_of(builder, 3)
    response = settle_answer(builder, call, usage, PRICE.cost(usage))
    _check_money(response)
    if error is not None:
        error.partial = response
        response.error = error
        _check_error(error)
    _check_response(response)
    return response, error


def _check_money(response: APIResponse) -> None:
    usage, cost = response.usage, response.cost
    assert usage is not None
    assert cost is not None
    assert math.isfinite(cost)
    assert cost >= 0
    for name in usage.__struct_fields__:
        count = getattr(usage, name)
        if name.endswith("_tokens") and count is not None:
            assert type(count) is int, name
            assert 0 <= count <= 2 * MOST_TOKENS, name  # sums of two counts, such as output and reasoning
    assert math.isfinite(PRICE.batch_cost(usage))
    assert (usage + usage).total_tokens == 2 * usage.total_tokens


def _check_response(response: APIResponse) -> None:
    assert isinstance(response.completion, str)
    assert isinstance(response.thinking, str)
    assert repr(response)
    assert response.error is None or response.error_message
    data = response.to_dict()
    text = json.dumps(data, allow_nan=False)
    text.encode()
    again = APIResponse.from_dict(json.loads(text))
    assert (again.completion, again.cost) == (response.completion, response.cost)
    copy = pickle.loads(pickle.dumps(response))  # noqa: S301 - bytes of this test
    assert copy.content == response.content
    assert type(copy.error) is type(response.error)


def _check_error(error: DelugeError) -> None:
    assert str(error)
    assert len(str(error)) < 10_000
    repr(error)
    json.dumps(error.to_dict(), allow_nan=False).encode()
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301 - bytes of this test
    assert (type(copy), str(copy)) == (type(error), str(error))
