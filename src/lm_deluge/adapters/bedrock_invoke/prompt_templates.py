"""Render conversations as one text, in the prompt format that a family of models was trained on.

Llama: https://www.llama.com/docs/model-cards-and-prompt-formats/. Mistral and Titan: the pages on their parameters in
Amazon Bedrock's user guide (2026-11).
"""

from __future__ import annotations

from collections.abc import Callable

from lm_deluge.adapters.adapter import Call
from lm_deluge.adapters.capabilities import cannot_place, cannot_take
from lm_deluge.adapters.text_files import with_inline_files
from lm_deluge.prompt.message import Message
from lm_deluge.prompt.parts import TextPart

__all__ = ["llama_prompt", "mistral_prompt", "single_prompt", "text_turns", "titan_prompt"]


def text_turns(call: Call) -> list[tuple[str, str]]:
    """Return the messages as pairs of `system`, `user` or `assistant` and text.

    Raises:
        UnsupportedParameterError: A user or system message has a part that is neither text nor a text file.
    """
    found: list[tuple[str, str]] = []
    for message in with_inline_files(call).conversation:
        role = "system" if message.role == "developer" else message.role
        if role == "assistant":
            text = message.completion
        else:
            text = _text_of(message)
        if text or role != "assistant":
            found.append((role, text))
    return found


def _text_of(message: Message) -> str:
    for part in message.parts:
        if not isinstance(part, TextPart):
            raise cannot_place(part, message.role)
    return message.completion


def single_prompt(call: Call) -> str:
    """Return the text of the only message.

    Raises:
        UnsupportedParameterError: The conversation is not a single user message.
    """
    turns = text_turns(call)
    if [role for role, _ in turns] != ["user"]:
        raise cannot_take(call, "conversation of several messages with this model", hint="Send a single user message.")
    return turns[0][1]


def titan_prompt(call: Call) -> str:
    """Return the prompt for Titan: a single message unchanged, several messages prefixed with `User:` and `Bot:`."""
    turns = text_turns(call)
    names = {"user": "User", "assistant": "Bot"}
    for role, _ in turns:
        if role not in names:
            raise cannot_take(call, f"message of role {role} with this model", hint="Send it as a user message.")
    if len(turns) == 1:
        return turns[0][1]
    lines = [f"{names[role]}: {text}" for role, text in turns]
    return "\n".join([*lines, "Bot:"])


def mistral_prompt(call: Call) -> str:
    """Return the prompt in the format of Mistral's first models: the system text precedes the first user message."""
    return _bracketed(call, system=lambda text: f"{text}\n\n", begin="<s>", end="</s>")


def llama_prompt(call: Call, generation: str) -> str:
    """Return the prompt in the format of a generation of Llama: `llama2`, `llama4`, or any between them."""
    if generation == "llama2":
        return _bracketed(call, system=lambda text: f"<<SYS>>\n{text}\n<</SYS>>\n\n", begin="<s>", end=" </s><s>")
    start, stop, turn_end = ("<|header_start|>", "<|header_end|>", "<|eot|>") if generation == "llama4" else _LLAMA_3
    turns = [f"{start}{role}{stop}\n\n{text}{turn_end}" for role, text in text_turns(call)]
    return f"<|begin_of_text|>{''.join(turns)}{start}assistant{stop}\n\n"


_LLAMA_3 = ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")


def _bracketed(call: Call, *, system: Callable[[str], str], begin: str, end: str) -> str:
    """Return the prompt with the user messages between `[INST]` and `[/INST]`."""
    turns = text_turns(call)
    system_text = "".join(system(text) for role, text in turns if role == "system")
    prompt = begin
    for role, text in turns:
        if role == "user":
            prompt += f"[INST] {system_text}{text} [/INST]"
            system_text = ""
        elif role == "assistant":
            prompt += f" {text}{end}"
        elif role != "system":
            raise cannot_take(call, f"message of role {role} with this model", hint="Send it as a user message.")
    return prompt
