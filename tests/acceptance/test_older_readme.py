"""Programs for lm-deluge 0.0.168, as its README shows them, run unchanged: the same calls in our own words.

The README is MIT licensed: https://pypi.org/project/lm-deluge/0.0.168/. Its examples of tools and agent loops are in
the tests of those.
"""

from __future__ import annotations

import ast
import asyncio
from collections.abc import Iterator
from pathlib import Path
from types import FunctionType
from typing import Any

import pytest

from lm_deluge.simulator import Simulator

QUICKSTART = """
from lm_deluge import LLMClient

client = LLMClient("gpt-4.1-mini")
resps = client.process_prompts_sync(["Good morning!"])
print(resps[0].completion)
"""
RESPONSES_API = """
from lm_deluge import LLMClient

client = LLMClient("gpt-4.1-mini", use_responses_api=True)
response = client.process_prompts_sync(["What is in this folder?"])[0]
print(response.completion)
"""
SPRAYING = """
from lm_deluge import LLMClient

client = LLMClient(["gpt-4.1-mini", "claude-4.5-haiku"], max_requests_per_minute=10_000)
resps = client.process_prompts_sync(["Good morning, GPT!", "Good morning, Claude!"])
print(resps[0].completion)
"""
CONFIGURATION = """
from lm_deluge import LLMClient, SamplingParams

client = LLMClient(
    "gpt-5.6", max_requests_per_minute=100, max_tokens_per_minute=500_000, max_concurrent_requests=500,
    sampling_params=SamplingParams(max_new_tokens=100),
)
texts = await client.process_prompts_async(["Where is Rome?"], show_progress=False, return_completions_only=True)
print(texts[0])
"""
QUEUE = """
from lm_deluge import LLMClient

client = LLMClient("gpt-4.1-mini", progress="tqdm")
client.open()
client.start_nowait("good morning")
async for task_id, result in client.as_completed():
    print(result.completion)
client.close()
"""
PICTURE = """
from lm_deluge import Conversation, LLMClient, Message

prompt = Conversation().system("You describe pictures.").add(Message.user("What is it?").add_image("picture.png"))
client = LLMClient("gpt-4.1-mini")
resps = client.process_prompts_sync([prompt])
print(resps[0].completion)
prompt.to_openai(), prompt.to_anthropic()
"""
FILES = """
from lm_deluge import Conversation, File, LLMClient

client = LLMClient("gpt-4.1-mini")
conversation = Conversation().user("Sum it up.", file="report.pdf")
print(client.process_prompts_sync([conversation])[0].completion)

file = File("report.pdf", filename="Q4.pdf")
conversation = Conversation().user("And this one.")
conversation.messages[0].parts.append(file)
print(client.process_prompts_sync([conversation])[0].completion)
"""
PROMPT_CACHE = """
from lm_deluge import Conversation, LLMClient, Message

conv = Conversation().system("You know everything about asyncio.").add(Message.user("What does gather do?"))
client = LLMClient("claude-4.5-sonnet")
resps = client.process_prompts_sync([conv], cache="system_and_tools")
print(resps[0].completion)
"""
LOCAL_CACHE = """
from lm_deluge import LLMClient

client = LLMClient("gpt-4.1-mini", cache="answers.sqlite")
for _ in range(2):
    resps = client.process_prompts_sync(["Good morning!"])
print(resps[0].completion)
assert resps[0].local_cache_hit
"""
ASYNCHRONOUS = """
import asyncio
from lm_deluge import LLMClient

client = LLMClient("gpt-4.1-mini")

async def main():
    responses = await client.process_prompts_async(["from async code"], return_completions_only=True)
    print(responses[0])

asyncio.run(main())
"""
MANY_TURNS = """
from lm_deluge import Conversation, LLMClient

client = LLMClient("gpt-4.1-mini")
conv = Conversation().user("Name a river.")
resp = await client.start(conv)
conv = conv.with_response(resp).user("Another one.")
resp = await client.start(conv)
print(resp.completion)
assert [message.role for message in conv.messages] == ["user", "assistant", "user"]
assert Conversation.from_log(conv.to_log()) == conv
"""
PROGRAMS = {name: value for name, value in globals().items() if name.isupper() and isinstance(value, str)}


@pytest.fixture
def sim(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Simulator]:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "picture.png").write_bytes(b"\x89PNG\r\n\x1a\n rest")
    (tmp_path / "report.pdf").write_bytes(b"%PDF-1.7")
    with Simulator("An answer.").start_in_thread() as running:
        for name, url in {"OPENAI": running.base_url, "ANTHROPIC": running.url}.items():
            monkeypatch.setenv(f"{name}_BASE_URL", url)
            monkeypatch.setenv(f"{name}_API_KEY", "sk-test")
        yield running


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_runs_unchanged(name: str, sim: Simulator, capsys: pytest.CaptureFixture[str]) -> None:
    if '"tqdm"' in PROGRAMS[name]:
        pytest.importorskip("tqdm")
    code = compile(PROGRAMS[name], name, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    namespace: dict[str, Any] = {"__name__": "__main__"}
    result = FunctionType(code, namespace)()
    if asyncio.iscoroutine(result):
        asyncio.run(result)
    lines = capsys.readouterr().out.split("\n")[:-1]
    assert lines == ["An answer."] * max(1, PROGRAMS[name].count("print("))
    assert sim.requests


def sent(name: str, sim: Simulator) -> list[Any]:
    FunctionType(compile(PROGRAMS[name], name, "exec"), {"__name__": "__main__"})()
    return [request.json for request in sim.requests]


def test_what_the_programs_send(sim: Simulator) -> None:
    picture, first, second, cached = [*sent("PICTURE", sim), *sent("FILES", sim)[1:], *sent("PROMPT_CACHE", sim)[3:]]
    assert [part["type"] for part in picture["messages"][1]["content"]] == ["text", "image_url"]
    assert first["messages"][0]["content"][1]["file"]["filename"] == "report.pdf"
    assert second["messages"][0]["content"][1]["file"]["filename"] == "Q4.pdf"
    assert cached["system"][0]["cache_control"] == {"type": "ephemeral"}
    (path,) = {request.path for request in sim.requests if "messages" in request.path}
    assert path == "/v1/messages"
    sent("RESPONSES_API", sim)
    assert sim.requests[-1].path == "/v1/responses"
