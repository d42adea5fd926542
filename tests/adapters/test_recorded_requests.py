"""Recorded requests, parsed and built again: the library sends the same request as the recorded client."""

from __future__ import annotations

import copy
import json

import pytest

import recordings
from lm_deluge.adapters.adapter import Call
from lm_deluge.adapters.catalog import find_adapter
from lm_deluge.encoders.catalog import find_encoder
from lm_deluge.models.rows import ModelRow, ProviderRow
from requests_again import JSON, find_comparisons

COMPARISONS = find_comparisons()


def request_of(api: str, name: str) -> JSON:
    return recordings.load(api, name).about.get("request") or {}


CASES = [(api, name) for api in sorted(COMPARISONS) for name in recordings.names(api) if request_of(api, name)]
pytestmark = pytest.mark.skipif(not CASES, reason=recordings.REASON)


def built_again(api: str, request: JSON, model: str) -> JSON:
    """Return the request that the adapter builds from the conversation that the encoder parses."""
    parsed = find_encoder(api).parse_request(json.dumps(request).encode(), model=model, is_streamed=True)
    row = ProviderRow(id=api, otel_name=api, adapter=api, base_url="https://acme.test", prompt_cache="explicit")
    call = Call(
        model=ModelRow(id=parsed.model, name=parsed.model, provider=row.id),
        provider=row,
        base_url=row.base_url,
        conversation=parsed.conversation,
        params=parsed.params,
        tools=parsed.tools,
        output=parsed.output,
        is_streamed=parsed.is_streamed,
        cache=parsed.cache,
        extra_body=parsed.extra,
    )
    body: JSON = json.loads(find_adapter(api).build_request(call).body)
    return body


@pytest.mark.parametrize(("api", "name"), CASES)
def test_a_recorded_request_is_built_again(api: str, name: str) -> None:
    request = request_of(api, name)
    comparison = COMPARISONS[api]
    for reason, applies in comparison.exceptions.items():
        if applies(request):
            pytest.skip(reason)
    built = built_again(api, request, recordings.load(api, name).about["model"])
    assert comparison.normal(built) == comparison.normal(copy.deepcopy(request))


@pytest.mark.parametrize("api", sorted(COMPARISONS))
def test_the_exceptions_are_few(api: str) -> None:
    requests = [request_of(api, name) for at, name in CASES if at == api]
    broken = [
        request for request in requests if any(applies(request) for applies in COMPARISONS[api].exceptions.values())
    ]
    assert len(broken) <= len(requests) * 0.05 + 1
