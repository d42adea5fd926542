"""The public API as users write it, for the type checkers; never executed."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator, Iterator
from typing import Any, assert_type

from lm_deluge import (
    APIResponse,
    Conversation,
    DelugeError,
    File,
    LLMClient,
    Message,
    SamplingParams,
    Timeouts,
    Tool,
    Usage,
)
from lm_deluge.api_requests.openai import stream_chat
from lm_deluge.client.stream import Stream
from lm_deluge.client.sync import SyncStream
from lm_deluge.config import LocalCache
from lm_deluge.dispatch.cache.sqlite import SQLiteCache
from lm_deluge.errors import APIError, OutputError, RateLimitError, TimeoutError, TruncatedError
from lm_deluge.events import (
    Attempt,
    Event,
    FinishReason,
    ReasoningDelta,
    ResponseFinished,
    ResponseStarted,
    TextDelta,
    ToolCallFinished,
    ToolResult,
    UsageReported,
)
from lm_deluge.filters import Redact, StopAt
from lm_deluge.prompt.parts import ToolCallPart
from lm_deluge.response import StreamStats
from lm_deluge.testing import decode_body, decode_events
from lm_deluge.usage import TokenCount


async def the_guide(client: LLMClient) -> None:
    """Await a stream."""
    response = await client.stream("Write a story.")
    assert_type(response, APIResponse)
    assert_type(response.content, Message)
    assert_type(response.content.completion, str)
    assert_type(response.completion, str)
    assert_type(response.thinking, str)
    assert_type(response.usage, Usage | None)
    assert_type(response.cost, float | None)
    assert_type(response.finish_reason, FinishReason | None)
    assert_type(response.stats, StreamStats | None)
    assert_type(response.to_dict(), dict[str, Any])
    assert_type(APIResponse.from_dict(response.to_dict()), APIResponse)
    if response.usage:
        assert_type(response.usage.total_tokens, int)


async def the_function() -> APIResponse | None:
    """Loop over the function API."""
    async for item in stream_chat(
        model_name="gpt-4o", prompt=Conversation.user("hi"), sampling_params=SamplingParams(temperature=0.7)
    ):
        if isinstance(item, str):
            assert_type(item, str)
        else:
            assert_type(item, APIResponse)
            return item
    return None


async def four_ways(client: LLMClient) -> None:
    """Take a stream in each way."""
    assert_type(client.stream("hi"), Stream)
    assert_type(client.stream("hi", filters=[StopAt("END"), Redact("a", "b")], smooth="word"), Stream)
    assert_type(aiter(client.stream("hi")), AsyncIterator[str])
    async for token in client.stream("hi"):
        assert_type(token, str)
    async with client.stream("hi", echo=io.StringIO()) as stream:
        assert_type(stream, Stream)
        assert_type(stream.events(), AsyncIterator[Event])
        assert_type(stream.sentences(), AsyncIterator[str])
        async for event in stream.events():
            show(event)
        assert_type(stream.response, APIResponse)
        assert_type(stream.stats, StreamStats)
        assert_type(await stream.cancel(), APIResponse)
    await client.stream("hi", echo=None)


async def at_half_the_price(client: LLMClient) -> None:
    """Take the answers of a provider's own batch."""
    assert_type(
        client.provider_batch(["one", Conversation.user("two")], journal="run.journal"),
        AsyncIterator[tuple[int, APIResponse]],
    )
    async for index, response in client.provider_batch(["one"], journal="run.journal"):
        assert_type(index, int)
        assert_type(response, APIResponse)


def blocking(client: LLMClient) -> None:
    """Do the same without asyncio."""
    with client.stream_sync("hi") as stream:
        assert_type(stream, SyncStream)
        assert_type(iter(stream), Iterator[str])
        assert_type(stream.events(), Iterator[Event])
        assert_type(stream.cancel(), APIResponse)


def show(event: Event) -> str:
    """Tell events apart; return what is to be shown of one."""
    match event:
        case TextDelta() | ReasoningDelta():
            assert_type(event, TextDelta | ReasoningDelta)
            return event.text
        case ToolCallFinished():
            assert_type(event.name, str)
        case UsageReported():
            assert_type(event.usage, Usage)
        case ResponseStarted():
            assert_type(event.response_id, str | None)
        case Attempt():
            assert_type(event.wait_s, float)
        case ResponseFinished():
            assert_type(event.finish_reason, FinishReason)
        case _:
            pass
    return ""


def conversations() -> Conversation:
    """Start, append and chain conversations."""
    conversation = Conversation().add(Message.system("Be brief.")).add(Message.user("Hi."))
    assert_type(conversation, Conversation)
    assert_type(Conversation.user("Hi.", image="cat.png"), Conversation)
    assert_type(conversation.user("And?"), Conversation)
    return Conversation.system("Be brief.").user("Hi.").assistant("Hello.")


async def typed(client: LLMClient) -> None:
    """Read a typed answer."""
    stream = client.stream("hi", output={"type": "object"}, max_output_retries=1, stop_on_invalid=False)
    async for path, value in stream.fields():
        assert_type(path, tuple[str | int, ...])
        assert_type(value, Any)
    for path, _ in client.stream_sync("hi", output=list[int]).fields():
        assert_type(path, tuple[str | int, ...])
    try:
        response = await client.stream("hi", output=list[int])
        assert_type(response.output, Any)
    except OutputError as error:
        assert_type(error.path, tuple[str | int, ...])


def options() -> list[LLMClient]:
    """Make clients."""
    tool = Tool(name="add", parameters={"type": "object"})
    LLMClient("gpt-4o").stream("hi", tools=[tool, {"name": "sub"}], output={"type": "object"})
    return [
        LLMClient("gpt-4o"),
        LLMClient(model="gpt-4o", temperature=0.2),
        LLMClient(["gpt-4o", "gpt-4o-mini"], timeouts=Timeouts(idle=30, total=None)),
        LLMClient("my-model", base_url="http://localhost:8000/v1", api_key="none"),
    ]


async def failures(client: LLMClient) -> None:
    """Handle errors."""
    try:
        await client.stream("hi")
    except RateLimitError as error:
        assert_type(error.retry_after_s, float | None)
    except APIError as error:
        assert_type(error.status_code, int | None)
    except TimeoutError as error:
        assert_type(error.limit_s, float)
    except TruncatedError as error:
        assert_type(error.partial, APIResponse | None)
    except DelugeError as error:
        assert_type(error.retryable, bool)
        assert_type(error.attempts, int)
        assert_type(error.hint, str | None)
        assert_type(error.to_dict(), dict[str, Any])


def recordings(body: bytes) -> None:
    """Read recorded bodies."""
    assert_type(decode_body("openai-chat", body), APIResponse)
    assert_type(decode_events("openai-chat", [body]), Iterator[Event])


class Shelf:
    """A cache of one's own."""

    async def get(self, key: str) -> bytes | None:
        """Find nothing."""
        return None

    async def put(self, key: str, value: bytes) -> None:
        """Keep nothing."""


def caches() -> list[LocalCache]:
    """Return what `local_cache` takes."""
    return [SQLiteCache("answers.sqlite3", max_bytes=1_000_000), Shelf()]


def unknown_keywords(client: LLMClient) -> None:
    """Each of these lines is an error; an unused `ignore` would be one, too."""
    LLMClient("gpt-4o", max_atempts=3)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    LLMClient("gpt-4o", max_attempts="3")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    client.stream("Hi", tool=[])  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    client.process_prompts_sync(["Hi"], progres="none")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]


async def forms_of_a_stream(client: LLMClient) -> None:
    """Take a stream as a coroutine, with sampling parameters as keywords."""
    task = asyncio.create_task(client.stream("Hello", temperature=0.2, max_new_tokens=5))
    assert_type(await task, APIResponse)
    assert_type(await client.stream("Hello").read_to_end(), APIResponse)
    assert_type(await client.stream("Hello").display(), APIResponse)
    assert_type(client.stream_sync("Hello").display(), APIResponse)
    assert_type(client.stream_sync("Hello", seed=1).result(), APIResponse)
    assert_type(client.stream_sync("Hello").text, str)


async def answers_as_they_complete(client: LLMClient) -> None:
    """Iterate over answers."""
    async for number, response in client.answers(["One?"], ids=["a"], journal="j", temperature=0.2):
        print(number)
        assert_type(response, APIResponse)
    LLMClient(["gpt-4o"], api_key={"gemini": "k"}, base_url={"gemini": "http://h"})


async def names_of_the_older_library(client: LLMClient) -> None:
    """Collect texts, count tokens, save and convert a conversation."""
    assert_type(client.process_prompts_sync(["Hi"], return_completions_only=True), list[str | None])
    assert_type(await client.process_prompts_async(["Hi"], show_progress=False), list[APIResponse])
    assert_type(await client.start("Hi"), APIResponse)
    assert_type(await client.count_tokens("Hi"), TokenCount)
    assert_type(client.context_window(), int | None)
    conversation = Conversation.user("Hi")
    assert_type(conversation.trimmed(100), Conversation)
    assert_type(Conversation.load("chat.json"), Conversation)
    assert_type(Conversation.from_openai(conversation.to_openai()), Conversation)
    assert_type(Conversation.from_unknown([]), tuple[Conversation, str])
    message = Message.user("Hi").add_image("photo.png").with_file(File("report.pdf", filename="Q4.pdf"))
    message.parts.append(File(b"%PDF-1"))
    Message("user", (part for part in message.parts))
    client.with_model("other")  # type: ignore[attr-defined]


async def agent_loops(client: LLMClient) -> None:
    """Run tools, decide about calls, and go on."""

    def weather(city: str) -> str:
        return city

    async def approve(call: ToolCallPart) -> bool:
        return call.name == "weather"

    stream = client.stream("Hi", tools=[weather], run_tools=True, max_rounds=3, approve=approve, tool_timeout=None)
    async for event in stream.events():
        if isinstance(event, ToolResult):
            assert_type(event.result, str)
    assert_type(stream.response.conversation, Conversation | None)
    assert_type(stream.response.pending, tuple[ToolCallPart, ...])
    assert_type(stream.response.rounds, tuple[APIResponse, ...])
    conversation, response = await client.run_agent_loop("Hi", tools=[weather], on_event=print, decisions={"a": True})
    assert_type(conversation, Conversation)
    assert_type(response, APIResponse)
    client.process_prompts_sync(["Hi"], tools=[weather], run_tools=True, progress="none")
    client.run_agent_loop_sync("Hi")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
