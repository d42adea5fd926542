"""The libraries, each behind the same few functions. Runs in the environment of one of them, so it imports no other.

`python peers.py PEER SCENARIO URL ...` prints the measurements of one run as JSON.
"""

import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

PROMPT = "Write two dozen words about the weather in spring."
MODEL = "gpt-4o-mini"
CONCURRENCY = 100  # calls in flight where many are made, the same for every peer
# For imports that ask the internet, and for keys that are demanded.
os.environ.update(LITELLM_LOCAL_MODEL_COST_MAP="True", OPENAI_API_KEY="none")

Texts = AsyncIterator[str]


class Bare:
    """aiohttp and msgspec in a minimal loop: no limits, retries, detection of faults or costs."""

    def __init__(self, url: str) -> None:
        import aiohttp
        import msgspec

        class Delta(msgspec.Struct):
            content: str | None = None

        class Choice(msgspec.Struct):
            delta: Delta | None = None
            message: Delta | None = None

        class Usage(msgspec.Struct):
            prompt_tokens: int
            completion_tokens: int

        class Chunk(msgspec.Struct):
            choices: list[Choice]
            usage: Usage | None = None

        self._decode = msgspec.json.Decoder(Chunk).decode
        self._encode = msgspec.json.encode
        connector = aiohttp.TCPConnector(limit=0)
        self._session = aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=None))
        self._url = f"{url}/chat/completions"
        self._headers = {"authorization": "Bearer none", "content-type": "application/json"}
        self.close = self._session.close

    def _post(self, *, is_streamed: bool) -> Any:
        messages = [{"role": "user", "content": PROMPT}]
        body: dict[str, Any] = {"model": MODEL, "messages": messages, "stream": is_streamed}
        if is_streamed:
            body["stream_options"] = {"include_usage": True}
        return self._session.post(self._url, data=self._encode(body), headers=self._headers)

    async def stream(self) -> Texts:
        rest = b""
        async with self._post(is_streamed=True) as response:
            while data := await response.content.readany():
                *events, rest = (rest + data).split(b"\n\n")
                for event in events:
                    if event != b"data: [DONE]":
                        for choice in self._decode(event[6:]).choices:
                            if choice.delta and choice.delta.content:
                                yield choice.delta.content

    async def collect(self, count: int, *, is_plain: bool) -> int:
        slots = asyncio.Semaphore(CONCURRENCY)

        async def ask() -> int:
            async with slots:
                if not is_plain:
                    return len("".join([text async for text in self.stream()]))
                async with self._post(is_streamed=False) as response:
                    return len(self._decode(await response.read()).choices[0].message.content)

        return sum(await asyncio.gather(*(ask() for _ in range(count))))


class Deluge:
    """This library, with its defaults."""

    def __init__(self, url: str) -> None:
        from lm_deluge import LLMClient

        self._options: dict[str, Any] = {"api_key": "none", "base_url": url, "progress": "none"}
        self._make = LLMClient
        self._client = LLMClient(MODEL, **self._options)
        self.close = self._client.close

    def stream(self) -> Texts:
        return self._client.stream(PROMPT)

    async def collect(self, count: int, *, is_plain: bool) -> int:
        collect = "plain" if is_plain else "stream"
        async with self._make(MODEL, max_concurrent_requests=CONCURRENCY, collect=collect, **self._options) as client:
            answers = await client.process_prompts_async([PROMPT] * count)
        return sum(len(each.completion) for each in answers)

    async def typed(self, kind: Any) -> int:
        async with self._client.stream(PROMPT, output=kind, echo=None) as stream:
            count = 0
            async for _ in stream.partials():
                count += 1
        return count


class OpenAI:
    """The official SDK."""

    def __init__(self, url: str) -> None:
        from openai import AsyncOpenAI

        self._client = AsyncOpenAI(base_url=url, api_key="none", max_retries=2, timeout=600)
        self.close = self._client.close

    def _ask(self, *, is_streamed: bool) -> Any:
        more: Any = {"stream": True, "stream_options": {"include_usage": True}} if is_streamed else {}
        messages: Any = [{"role": "user", "content": PROMPT}]
        return self._client.chat.completions.create(model=MODEL, messages=messages, **more)

    async def stream(self) -> Texts:
        async for chunk in await self._ask(is_streamed=True):
            if chunk.choices and chunk.choices[0].delta.content:
                yield chunk.choices[0].delta.content

    async def collect(self, count: int, *, is_plain: bool) -> int:
        slots = asyncio.Semaphore(CONCURRENCY)

        async def ask() -> int:
            async with slots:
                if not is_plain:
                    return len("".join([text async for text in self.stream()]))
                return len((await self._ask(is_streamed=False)).choices[0].message.content)

        return sum(await asyncio.gather(*(ask() for _ in range(count))))


class LiteLLM(OpenAI):
    """The SDK of LiteLLM."""

    def __init__(self, url: str) -> None:
        import litellm

        self._litellm, self._url = litellm, url

    async def close(self) -> None:
        return None

    def _ask(self, *, is_streamed: bool) -> Any:
        more: Any = {"stream": True, "stream_options": {"include_usage": True}} if is_streamed else {}
        messages = [{"role": "user", "content": PROMPT}]
        model = f"openai/{MODEL}"
        return self._litellm.acompletion(model=model, messages=messages, api_base=self._url, api_key="none", **more)


class PydanticAI:
    """An agent of pydantic-ai without tools."""

    def __init__(self, url: str) -> None:
        from pydantic_ai import Agent
        from pydantic_ai.models.openai import OpenAIChatModel
        from pydantic_ai.providers.openai import OpenAIProvider

        self._model = OpenAIChatModel(MODEL, provider=OpenAIProvider(base_url=url, api_key="none"))
        self._make = Agent
        self._agent = Agent(self._model)

    async def close(self) -> None:
        return None

    async def stream(self) -> Texts:
        async with self._agent.run_stream(PROMPT) as result:
            async for text in result.stream_text(delta=True, debounce_by=None):
                yield text

    async def collect(self, count: int, *, is_plain: bool) -> int:
        slots = asyncio.Semaphore(CONCURRENCY)

        async def ask() -> int:
            async with slots:
                if not is_plain:
                    return len("".join([text async for text in self.stream()]))
                return len((await self._agent.run(PROMPT)).output)

        return sum(await asyncio.gather(*(ask() for _ in range(count))))

    async def typed(self, kind: Any) -> int:
        from pydantic_ai import NativeOutput

        agent = self._make(self._model, output_type=NativeOutput(kind))
        count = 0
        async with agent.run_stream(PROMPT) as result:
            async for _ in result.stream_output(debounce_by=None):
                count += 1
        return count


class Older:
    """lm-deluge 0.0.168: its batches request plain answers; its streams open a connection each."""

    def __init__(self, url: str) -> None:
        from types import SimpleNamespace

        from lm_deluge import Conversation, LLMClient
        from lm_deluge.api_requests import openai
        from lm_deluge.models import register_model  # exists in 0.0.168 only

        class Context(SimpleNamespace):  # attributes that its request builder reads, but its stream does not set
            def validate_request_config(self) -> None: ...
            def __getattr__(self, name: str) -> None: ...

        openai.SimpleNamespace = Context
        self._stream_chat, self._conversation = openai.stream_chat, Conversation
        register_model(id="bench", name=MODEL, api_base=url, api_key_env_var="OPENAI_API_KEY", api_spec="openai")
        limits = {"max_requests_per_minute": 10**9, "max_tokens_per_minute": 10**12}
        self._client = LLMClient("bench", max_concurrent_requests=CONCURRENCY, progress="manual", **limits)

    async def close(self) -> None:
        return None

    async def stream(self) -> Texts:
        async for item in self._stream_chat("bench", self._conversation().user(PROMPT)):
            if not isinstance(item, str):
                return  # reading further fails on its own end mark
            yield item

    async def collect(self, count: int, *, is_plain: bool) -> int:
        found = await self._client.process_prompts_async([PROMPT] * count, show_progress=False)
        return sum(len(each.completion) for each in found)


LIBRARIES: dict[str, Callable[[str], Any]] = {
    "aiohttp": Bare,
    "lm_deluge": Deluge,
    "openai": OpenAI,
    "litellm": LiteLLM,
    "pydantic-ai": PydanticAI,
    "lm-deluge 0.0.168": Older,
}


async def burst(peer: Any, answers: str) -> dict[str, float]:
    """Read answers that arrive as fast as possible: CPU seconds for each event."""
    events = 0
    async for _ in peer.stream():
        events += 1
    cpu, read = time.process_time(), 0
    for _ in range(int(answers)):
        async for _ in peer.stream():
            read += 1
    return {"cpu_s": (time.process_time() - cpu) / max(read, 1), "events": read}


async def paced(peer: Any, streams: str, characters: str) -> dict[str, float]:
    """Read many streams at the speed of a model: CPU seconds for each event, and the delay of events."""
    lags: list[float] = []
    events = 0

    async def one() -> None:
        nonlocal events
        async for text in peer.stream():
            events += len(text) // int(characters)
            if events % 50 == 0:
                lags.append(time.monotonic() - float(text[-int(characters) :]))

    cpu = time.process_time()
    found = await asyncio.gather(*(one() for _ in range(int(streams))), return_exceptions=True)
    cpu = time.process_time() - cpu
    lags.sort()
    failed = sum(1 for each in found if each is not None)
    last = len(lags) - 1
    delays = {"lag_p50_s": lags[last // 2], "lag_p99_s": lags[last * 99 // 100]} if lags else {}
    return {"cpu_s": cpu / max(events, 1), "events": events, "failed": failed, **delays}


async def warm(peer: Any, calls: str) -> dict[str, float]:
    """Read short answers one after the other: seconds until the first text."""
    firsts = []
    for _ in range(int(calls)):
        started = time.perf_counter()
        first = None
        async for _ in peer.stream():
            first = first or time.perf_counter() - started
        firsts.append(first or 0.0)
    firsts = sorted(firsts[len(firsts) // 10 :])
    return {"first_s": firsts[len(firsts) // 2]}


async def cold(peer: Any, spawned_at: str) -> dict[str, float]:
    """Seconds from the start of the process to the first text, and the CPU seconds of the process until then."""
    found: dict[str, float] = {}
    async for _ in peer.stream():
        if not found:
            found = {"first_s": time.monotonic() - float(spawned_at), "cpu_s": time.process_time()}
    return found


async def collected(peer: Any, count: str, *, is_plain: bool) -> dict[str, float]:
    """Collect answers that nobody watches: CPU and wall seconds for each."""
    await peer.collect(CONCURRENCY, is_plain=is_plain)
    cpu, wall = time.process_time(), time.perf_counter()
    characters = await peer.collect(int(count), is_plain=is_plain)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    return {"cpu_s": cpu / int(count), "wall_s": wall / int(count), "characters": characters}


async def typed(peer: Any, answers: str) -> dict[str, float]:
    """Read an object, with a partial object after each piece: CPU seconds for each piece."""
    from pydantic import BaseModel

    class Line(BaseModel):
        name: str = ""
        price: float = 0
        count: int = 0
        tags: list[str | bool | None] = []
        note: str = ""

    class Invoice(BaseModel):
        title: str = ""
        lines: list[Line] = []

    await peer.typed(Invoice)
    cpu, objects = time.process_time(), 0
    for _ in range(int(answers)):
        objects += await peer.typed(Invoice)
    return {"cpu_s": (time.process_time() - cpu) / int(answers), "objects": objects}


SCENARIOS: dict[str, Callable[..., Awaitable[dict[str, float]]]] = {
    "burst": burst,
    "paced": paced,
    "warm": warm,
    "cold": cold,
    "streamed": lambda peer, count: collected(peer, count, is_plain=False),
    "plain": lambda peer, count: collected(peer, count, is_plain=True),
    "typed": typed,
}


async def main(name: str, scenario: str, url: str, arguments: list[str]) -> None:
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    peer = LIBRARIES[name](url)
    found = await SCENARIOS[scenario](peer, *arguments)
    print("\n" + json.dumps(found), flush=True)  # a line of its own: libraries print, too
    await peer.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4:]))
