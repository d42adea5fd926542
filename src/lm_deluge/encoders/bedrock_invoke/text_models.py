"""Parse requests and encode responses of text-completion models, in the format of each vendor.

The responses hold only text, the finish reason and usage.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, ClassVar, NamedTuple

from lm_deluge.config import SamplingParams
from lm_deluge.encoders.bedrock_converse.fields import need, take
from lm_deluge.encoders.event_writer import EventHandlers, EventWriter
from lm_deluge.events import (
    Attempt,
    Citation,
    Event,
    FinishReason,
    MediaDelta,
    ProviderPart,
    ReasoningDelta,
    RefusalDelta,
    ResponseFinished,
    ResponseStarted,
    TextDelta,
    ToolCallDelta,
    ToolCallFinished,
    ToolCallStarted,
    UsageReported,
)
from lm_deluge.prompt.message import Message
from lm_deluge.response import ResponseBuilder
from lm_deluge.usage import Usage

__all__ = ["TEXT_FORMS", "TextForm", "build_text_answer", "metrics", "write_text"]

JSON = dict[str, Any]


class TextForm(NamedTuple):
    """The format of one model family.

    Attributes:
        prompt: The field of a request with the prompt.
        fields: Name of a sampling parameter -> its field in a request; a dot separates an object and its field.
        chunk: Function from a text delta to a chunk.
        last: Function from the finish reason to the last chunk.
        whole: Function from text, finish reason and usage to a response that is not streamed.
        reasons: The family's values for the finish reasons "stop" and "length".
        known: Fields of a request without a counterpart that need not be passed on.
    """

    prompt: str
    fields: dict[str, str]
    chunk: Callable[[str], JSON]
    last: Callable[[str], JSON]
    whole: Callable[[str, str | None, Usage | None], JSON]
    reasons: tuple[str, str]
    known: frozenset[str] = frozenset()

    def read(self, raw: JSON) -> tuple[list[Message], SamplingParams, JSON]:
        """Return the messages and parameters of a request, and the fields to pass on.

        Raises:
            BadRequestError: The request is malformed.
        """
        read = {self.prompt, *self.known}
        values: JSON = {}
        for name, path in self.fields.items():
            outer, _, inner = path.rpartition(".")
            values[name] = (take(raw, outer, dict, {}) if outer else raw).get(inner)
            read.add(outer or inner)
        messages = [Message.user(need(raw, self.prompt, str))]
        values["stop"] = values.get("stop") or None
        if self.prompt == "message":
            messages = [*_history(raw), *messages]
            read |= {"preamble", "chat_history"}
        return messages, SamplingParams(**values), {name: value for name, value in raw.items() if name not in read}


def _history(raw: JSON) -> list[Message]:
    roles = {"CHATBOT": Message.assistant, "SYSTEM": Message.system}
    preamble = take(raw, "preamble", str)
    messages = [] if preamble is None else [Message.system(preamble)]
    for turn in take(raw, "chat_history", list, []):
        make = roles.get(take(turn, "role", str, ""), Message.user)
        messages.append(make(need(turn, "message", str, at="chat_history.")))
    return messages


def _titan_whole(text: str, reason: str | None, usage: Usage | None) -> JSON:
    result = {"tokenCount": usage.output_tokens if usage else None, "outputText": text, "completionReason": reason}
    return {"inputTextTokenCount": usage.input_tokens if usage else None, "results": [result]}


def _llama_whole(text: str, reason: str | None, usage: Usage | None) -> JSON:
    counts = {
        "prompt_token_count": usage.input_tokens if usage else None,
        "generation_token_count": usage.output_tokens if usage else None,
    }
    return {"generation": text, **counts, "stop_reason": reason}


_SAMPLING = {"max_new_tokens": "max_tokens", "temperature": "temperature"}

TEXT_FORMS: dict[str, TextForm] = {
    "titan": TextForm(
        "inputText",
        {
            "max_new_tokens": "textGenerationConfig.maxTokenCount",
            "temperature": "textGenerationConfig.temperature",
            "top_p": "textGenerationConfig.topP",
            "stop": "textGenerationConfig.stopSequences",
        },
        lambda text: {"outputText": text, "index": 0, "completionReason": None},
        lambda reason: {"outputText": "", "index": 0, "totalOutputTextTokenCount": 0, "completionReason": reason},
        _titan_whole,
        ("FINISH", "LENGTH"),
    ),
    "llama": TextForm(
        "prompt",
        {"max_new_tokens": "max_gen_len", "temperature": "temperature", "top_p": "top_p"},
        lambda text: {"generation": text, "stop_reason": None},
        lambda reason: {"generation": "", "stop_reason": reason},
        _llama_whole,
        ("stop", "length"),
    ),
    "mistral-text": TextForm(
        "prompt",
        {**_SAMPLING, "top_p": "top_p", "stop": "stop"},
        lambda text: {"outputs": [{"text": text, "stop_reason": None}]},
        lambda reason: {"outputs": [{"text": "", "stop_reason": reason}]},
        lambda text, reason, _: {"outputs": [{"text": text, "stop_reason": reason}]},
        ("stop", "length"),
    ),
    "command": TextForm(
        "prompt",
        {**_SAMPLING, "top_p": "p", "stop": "stop_sequences"},
        lambda text: {"is_finished": False, "text": text},
        lambda reason: {"is_finished": True, "finish_reason": reason},
        lambda text, reason, _: {"generations": [{"text": text, "finish_reason": reason}]},
        ("COMPLETE", "MAX_TOKENS"),
        frozenset({"stream"}),
    ),
    "command-r": TextForm(
        "message",
        {
            **_SAMPLING,
            "top_p": "p",
            "stop": "stop_sequences",
            "seed": "seed",
            "presence_penalty": "presence_penalty",
            "frequency_penalty": "frequency_penalty",
        },
        lambda text: {"event_type": "text-generation", "is_finished": False, "text": text},
        lambda reason: {"event_type": "stream-end", "is_finished": True, "finish_reason": reason},
        lambda text, reason, _: {"text": text, "finish_reason": reason},
        ("COMPLETE", "MAX_TOKENS"),
    ),
}


def write_text(form: TextForm, events: Iterable[Event]) -> Iterator[JSON]:
    """Yield the chunks of a streamed response, each as soon as the events that complete it are read."""
    return _TextWriter(form).write_all(events)


class _TextWriter(EventWriter[JSON]):
    """State of one streamed response of a text-completion model."""

    def __init__(self, form: TextForm) -> None:
        super().__init__()
        self._form = form
        self._usage: Usage | None = None

    def add_text(self, event: TextDelta | RefusalDelta) -> list[JSON]:
        return [self._form.chunk(event.text)] if event.text else []

    def keep_usage(self, event: UsageReported) -> list[JSON]:
        self._usage = event.usage
        return []

    def finish(self, event: ResponseFinished) -> list[JSON]:
        return [{**self._form.last(_finish_reason(self._form, event.finish_reason)), **metrics(self._usage)}]

    HANDLED: ClassVar[EventHandlers] = {
        TextDelta: add_text,
        RefusalDelta: add_text,
        UsageReported: keep_usage,
        ResponseFinished: finish,
    }
    IGNORED = frozenset(
        {
            ResponseStarted,  # chunks have fields for neither id nor model
            ReasoningDelta,  # these models continue a text: they have no reasoning, tools, sources or media
            ToolCallStarted,
            ToolCallDelta,
            ToolCallFinished,
            Citation,
            MediaDelta,
            ProviderPart,
            Attempt,  # a retry of this library; no wire API reports one
        }
    )


def build_text_answer(form: TextForm, events: Iterable[Event]) -> JSON:
    """Return the response as one JSON object; a truncated response has no finish reason."""
    builder = ResponseBuilder()
    builder.add_all(events)
    response = builder.response()
    finished = builder.finished
    reason = None if finished is None else _finish_reason(form, finished.finish_reason)
    return form.whole(response.content.refusal + response.completion, reason, response.usage)


def _finish_reason(form: TextForm, reason: FinishReason) -> str:
    return form.reasons[reason == "length"]


def metrics(usage: Usage | None) -> JSON:
    """Return the fields that Bedrock adds to the last chunk of a stream; no fields if the usage is unknown."""
    if usage is None:
        return {}
    cached = {
        "cacheReadInputTokenCount": usage.cache_read_tokens,
        "cacheWriteInputTokenCount": usage.cache_write_tokens,
    }
    known = {name: count for name, count in cached.items() if count is not None}
    counts = {
        "inputTokenCount": max(usage.input_tokens - sum(known.values()), 0),
        "outputTokenCount": usage.output_tokens,
        "invocationLatency": 0,
        "firstByteLatency": 0,
    }
    return {"amazon-bedrock-invocationMetrics": {**counts, **known}}
