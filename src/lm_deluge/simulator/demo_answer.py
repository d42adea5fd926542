"""The default answer: a short tour of the library, which says what it is talking from."""

from __future__ import annotations

import re

__all__ = ["write_tour"]

_LONGEST_ECHO = 60

# Everything a terminal or a Markdown heading could take for a command.
_UNSAFE = re.compile(r"[\x00-\x1f\x7f-\x9f`*_<>#\[\]|\\]")

_TOUR = """\
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
    client = LLMClient("gpt-4o")
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


def write_tour(question: str) -> str:
    """Return the tour; a short question is taken up in its heading."""
    asked = " ".join(_UNSAFE.sub(" ", question).split())
    heading = f"## You said: {asked}" if asked and len(question) <= _LONGEST_ECHO else "## Welcome to LM Deluge"
    return f"{heading}\n\n{_TOUR}"
