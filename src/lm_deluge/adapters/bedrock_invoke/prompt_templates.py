"""Conversations as one text, in the form that a family of models was trained on.

The forms of Llama: https://www.llama.com/docs/model-cards-and-prompt-formats/; of Mistral and Titan: the pages on their
parameters in Amazon Bedrock's user guide (2026-11).
"""

from __future__ import annotations

from collections.abc import Callable

from lm_deluge.adapters.adapter import Call
from lm_deluge.adapters.capabilities import cannot_place, cannot_take
from lm_deluge.prompt.message import Message
from lm_deluge.prompt.parts import TextPart

__all__ = ["llama_prompt", "mistral_prompt", "plain_prompt", "spoken", "titan_prompt"]


def spoken(call: Call) -> list[tuple[str, str]]:
    """Return the messages as pairs of `system`, `user` or `assistant` and text.

    Raises:
        UnsupportedParameterError: A message of the user or the system is not text.
    """
    found: list[tuple[str, str]] = []
    for message in call.conversation:
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


def plain_prompt(call: Call) -> str:
    """Return the one message of the user, as it is.

    Raises:
        UnsupportedParameterError: There is more than that.
    """
    turns = spoken(call)
    if [role for role, _ in turns] != ["user"]:
        raise cannot_take(call, "conversation with this model, but one message of the user", hint="Ask it alone.")
    return turns[0][1]


def titan_prompt(call: Call) -> str:
    """Return the conversation as Titan wants it: one message as it is, several with their speakers' names."""
    turns = spoken(call)
    names = {"user": "User", "assistant": "Bot"}
    for role, _ in turns:
        if role not in names:
            raise cannot_take(call, f"message of role {role} with this model", hint="Say it as the user.")
    if len(turns) == 1:
        return turns[0][1]
    lines = [f"{names[role]}: {text}" for role, text in turns]
    return "\n".join([*lines, "Bot:"])


def mistral_prompt(call: Call) -> str:
    """Return the conversation with the marks of Mistral's first models: the system speaks before the first question."""
    return _bracketed(call, system=lambda text: f"{text}\n\n", begin="<s>", end="</s>")


def llama_prompt(call: Call, generation: str) -> str:
    """Return the conversation with the marks of a generation of Llama: `llama2`, `llama4`, or any between them."""
    if generation == "llama2":
        return _bracketed(call, system=lambda text: f"<<SYS>>\n{text}\n<</SYS>>\n\n", begin="<s>", end=" </s><s>")
    start, stop, over = ("<|header_start|>", "<|header_end|>", "<|eot|>") if generation == "llama4" else _LLAMA_3
    turns = [f"{start}{role}{stop}\n\n{text}{over}" for role, text in spoken(call)]
    return f"<|begin_of_text|>{''.join(turns)}{start}assistant{stop}\n\n"


_LLAMA_3 = ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")


def _bracketed(call: Call, *, system: Callable[[str], str], begin: str, end: str) -> str:
    """Return the conversation with the user's turns between `[INST]` and `[/INST]`."""
    turns = spoken(call)
    told = "".join(system(text) for role, text in turns if role == "system")
    written = begin
    for role, text in turns:
        if role == "user":
            written += f"[INST] {told}{text} [/INST]"
            told = ""
        elif role == "assistant":
            written += f" {text}{end}"
        elif role != "system":
            raise cannot_take(call, f"message of role {role} with this model", hint="Say it as the user.")
    return written
