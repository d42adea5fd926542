"""One real call, for whoever has a key: `OPENAI_API_KEY=... make live`. It costs a fraction of a cent."""

import os

import pytest

from lm_deluge import LLMClient

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(not os.environ.get("OPENAI_API_KEY"), reason="OPENAI_API_KEY is not set"),
]


async def test_a_short_answer_streams() -> None:
    async with LLMClient("gpt-4o-mini", max_new_tokens=20) as client, client.stream("Count from 1 to 5.") as stream:
        tokens = [token async for token in stream]
    response = stream.response
    assert len(tokens) > 1
    assert response.finish_reason in ("stop", "length")
    assert response.usage.raw is not None
    assert response.cost > 0
    print(f"\nopenai: {response.model_external}, {response.usage.total_tokens} tokens, ${response.cost:.6f}")
