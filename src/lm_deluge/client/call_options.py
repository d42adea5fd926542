"""The options of one call, beside its prompt."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias, get_args

import msgspec

from lm_deluge.agents.options import LOOP_NAMES, LoopOptions
from lm_deluge.config import (
    SAMPLING_NAMES,
    Collect,
    Priority,
    PromptCache,
    SamplingParams,
    unknown_option,
)
from lm_deluge.errors import ConfigurationError
from lm_deluge.filters.compiled import compile_filters
from lm_deluge.filters.rules import Filter
from lm_deluge.option_checks import check_choice, check_range
from lm_deluge.prompt.tool import ProviderTool, Tool, ToolSource

__all__ = ["NO_OPTIONS", "CallOptions", "Tools", "merge_params"]

Tools: TypeAlias = Sequence[Tool | ProviderTool | ToolSource | Callable[..., Any] | Mapping[str, Any]]
"""The tools of a call: functions, Pydantic models and other classes with fields, `Tool`, `MCPServer`, plain JSON."""


class CallOptions(NamedTuple):
    """The options of one call, or of all calls of a batch.

    Attributes:
        tools: The tools that the model may call: functions, classes with fields, `Tool`, `MCPServer` or plain JSON.
        sampling_params: Its fields replace the client's, one by one.
        output: Type of the answer: a Pydantic model, dataclass, TypedDict, `list[...]`, or a JSON schema.
        cache: Which part of the prompt the provider keeps in its own cache.
        prefer_model: Id of the client's model that answers as long as it is available.
        max_cost: US dollars that the call may cost.
        filters: Filters of the answer, from `lm_deluge.filters`: redaction, stop texts, tags of reasoning, guards.
        collect: How the answer is requested if only the response is used, as `ClientOptions` has it; None: as the
            client's option has it. Streams have no such option.
        priority: Whether a user waits for the call; None: as the method has it, `interactive` for single streams.
        extra_body: Merged into the request's JSON, over the client's own.
        sampling: Single sampling parameters by name. They replace those of `sampling_params` and of the client, also
            where they are None or False.
        max_output_retries: How often the model is asked again, with the error, after an answer that is not a valid
            `output`. Usage and cost of all answers add up.
        stop_on_invalid: The first invalid value of an `output` ends the stream, which saves the cost of the rest. If
            false, and in calls with tools, the answer is judged at its end.
        check_partial: Function called with the `output` so far, as plain data, after each read. A `ValueError` that it
            raises makes the answer invalid.
        loop: Whether the program runs the tools, and how.
    """

    tools: Tools | None = None
    sampling_params: SamplingParams | None = None
    output: Any = None
    cache: PromptCache | None = None
    prefer_model: str | None = None
    max_cost: float | None = None
    priority: Priority | None = None
    collect: Collect | None = None
    filters: Sequence[Filter] | None = None
    extra_body: Mapping[str, Any] = {}
    sampling: Mapping[str, Any] = {}
    max_output_retries: int = 0
    stop_on_invalid: bool = True
    check_partial: Callable[[Any], object] | None = None
    loop: LoopOptions = LoopOptions()

    @classmethod
    def from_keywords(cls, keywords: Mapping[str, Any], *, also: Collection[str] = ()) -> CallOptions:
        """Build the options from the keyword arguments of a method.

        Args:
            keywords: As the caller gave them.
            also: Further keywords of the method, for the message about an unknown one.

        Raises:
            ConfigurationError: A keyword is unknown (the message names the nearest known one), or a value is out of
                range.
        """
        return cls().with_keywords(keywords, also=also).checked()

    def with_keywords(self, keywords: Mapping[str, Any], *, also: Collection[str] = ()) -> CallOptions:
        """Return the options with those that a caller gave as keyword arguments, sampling parameters included.

        Args:
            keywords: As the caller gave them.
            also: Further keywords of the method, for the message about an unknown one.

        Raises:
            ConfigurationError: A name is unknown (the message has the nearest known one), or a value is out of range.
        """
        own = {name: value for name, value in keywords.items() if name in _PUBLIC}
        loop = {name: value for name, value in keywords.items() if name in LOOP_NAMES}
        others = {name: value for name, value in keywords.items() if name not in own and name not in loop}
        if loop:
            own["loop"] = LoopOptions.from_keywords(loop)
        return self._replace(**own).with_sampling(others, also=also)

    def with_sampling(self, sampling: Mapping[str, Any], *, also: Collection[str] = ()) -> CallOptions:
        """Return the options with single sampling parameters.

        Args:
            sampling: The parameters by name, as the caller gave them.
            also: Further keywords of the method, for the message about an unknown one.

        Raises:
            ConfigurationError: A name is no parameter (the message names the nearest one), or a value is out of range.
        """
        if not sampling:
            return self
        for name in sampling:
            if name not in SAMPLING_NAMES:
                raise unknown_option(name, {*_PUBLIC, *LOOP_NAMES, *SAMPLING_NAMES, *also})
        params = SamplingParams(**sampling)
        return self._replace(sampling={name: getattr(params, name) for name in sampling})

    def checked(self) -> CallOptions:
        """Return the options.

        Raises:
            ConfigurationError: `max_cost` or `max_output_retries` is out of range, there is no such `priority`, or a
                filter cannot be used.
        """
        retries = self.max_output_retries
        if isinstance(retries, bool) or not isinstance(retries, int) or retries < 0:
            raise ConfigurationError(
                f"max_output_retries={retries!r} is not a number of retries", hint="Pass 0 or more."
            )
        if self.check_partial is not None and not callable(self.check_partial):
            raise ConfigurationError(f"check_partial is not a function, but {type(self.check_partial).__name__}")
        filters = compile_filters(self.filters)  # which may be an iterator
        check_range("max_cost", self.max_cost, 0, math.inf)
        check_choice("priority", self.priority, get_args(Priority))
        check_choice("collect", self.collect, get_args(Collect))
        return self._replace(filters=None if filters is None else filters.rules)

    def of_stream(self) -> CallOptions:
        """Return the options, of a call whose events are delivered.

        Raises:
            ConfigurationError: `collect` is set.
        """
        if self.collect is not None:
            raise ConfigurationError(
                "collect is no option of a stream, which delivers the answer as it arrives",
                hint="process_prompts_async, answers and start take it.",
            )
        return self


_PUBLIC = [name for name in CallOptions._fields if name not in ("extra_body", "sampling", "loop")]
NO_OPTIONS = CallOptions()
"""A call that leaves all options to its client."""


def merge_params(defaults: SamplingParams, own: SamplingParams | None) -> SamplingParams:
    """Return the client's sampling parameters with those fields replaced that the call sets.

    Raises:
        ConfigurationError: `own` is not a `SamplingParams`.
    """
    if own is None:
        return defaults
    if not isinstance(own, SamplingParams):
        raise ConfigurationError("sampling_params is not a SamplingParams")
    blank = SamplingParams()
    values = {name: getattr(own, name) for name in own.__struct_fields__}
    return msgspec.structs.replace(
        defaults, **{name: value for name, value in values.items() if value != getattr(blank, name)}
    )
