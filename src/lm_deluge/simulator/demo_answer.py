"""The default answer: a short tour of the library, which states that it comes from the simulator."""

from __future__ import annotations

import re

__all__ = ["write_demo_answer"]

_LONGEST_ECHO = 60  # characters of a question that still fit into a heading on one line of a terminal
_ECHO_PREFIX = "You said:"

# Characters that a terminal or a Markdown heading would interpret.
_UNSAFE = re.compile(r"[\x00-\x1f\x7f-\x9f`*_<>#\[\]|\\]")

_DEMO_ANSWER = """\
I am the **simulator** of LM Deluge, not a model: this text was written beforehand and comes to you token by \
token over a real socket, and is read by the same code that talks to OpenAI. 🌊

There are four ways to take a stream:

1. **Await it** and it prints itself: `response = await client.stream(prompt)`
2. **Iterate** over its text: `async for token in client.stream(prompt)`
3. **Open it** for typed events: `async with client.stream(prompt) as stream`
4. **Without asyncio**: `with client.stream_sync(prompt) as stream`

```python
import asyncio
from lm_deluge import LLMClient

async def main():
    client = LLMClient("gpt-5.4")
    async for token in client.stream("Tell me a story"):
        print(token, end="", flush=True)

asyncio.run(main())
```

What to try next:

- `deluge chat` for a conversation in the terminal,
- `deluge simulate --list-faults` for everything that can go wrong with a stream, on demand,
- `OPENAI_API_KEY=... deluge stream "Hello"` to hear a **real model**.

A stream that breaks never ends in silence: it raises, with all that arrived in `.partial`.
"""


def write_demo_answer(question: str) -> str:
    """Return the demo answer; a short question is repeated in its heading."""
    safe_question = " ".join(_UNSAFE.sub(" ", question).split())
    is_echoed = safe_question and len(question) <= _LONGEST_ECHO
    heading = f"## {_ECHO_PREFIX} {safe_question}" if is_echoed else "## Welcome to LM Deluge"
    return f"{heading}\n\n{_DEMO_ANSWER}"
