"""What the calls of a client share (`Dispatcher`), and how a prompt becomes the plan of a request (`CallPlanner`)."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping
from functools import partial
from os import PathLike
from typing import TYPE_CHECKING, NamedTuple, cast
from weakref import WeakKeyDictionary

import msgspec

from lm_deluge.adapters.adapter import Adapter, Call
from lm_deluge.adapters.capabilities import with_warnings
from lm_deluge.adapters.catalog import find_adapter
from lm_deluge.adapters.openai_chat.routing import may_be_routed
from lm_deluge.adapters.output_form import with_output_form
from lm_deluge.agents.agent_call import open_agent_call
from lm_deluge.agents.history import with_closed_calls
from lm_deluge.agents.options import LoopOptions
from lm_deluge.api_requests.accounts import Accounts
from lm_deluge.api_requests.call_plan import CallPlan
from lm_deluge.api_requests.credentials import Access, find_access
from lm_deluge.api_requests.plain_answers import PlainAnswers
from lm_deluge.api_requests.request import build_blank_call, settle_call
from lm_deluge.client.call_options import NO_OPTIONS, CallOptions, merge_params
from lm_deluge.client.loops.agent_loops import AgentLoops, prepared_tools
from lm_deluge.client.scheduling import build_limiter, build_runner, build_shared_limiter
from lm_deluge.config import ClientOptions, Collect, LocalCache, Priority, Timeouts
from lm_deluge.dispatch.budget import Budget
from lm_deluge.dispatch.cache.sqlite import SQLiteCache, open_cache
from lm_deluge.dispatch.call import CallSpec
from lm_deluge.dispatch.call_watch import ObserverGroup
from lm_deluge.dispatch.scheduling.runner import LimiterLock, Runner
from lm_deluge.errors import ConfigurationError, ContextLengthError
from lm_deluge.filters.compiled import compile_filters
from lm_deluge.models.registry import SIMULATOR, find_provider
from lm_deluge.models.rows import ModelRow
from lm_deluge.outputs.answer_type import answer_type
from lm_deluge.outputs.typed_call import OpenCall, OutputRules, judged_response, open_typed, restored_response
from lm_deluge.prompt.conversation import Conversation, Prompt, to_conversation
from lm_deluge.response import APIResponse
from lm_deluge.transport.base import Transport
from lm_deluge.transport.http import AiohttpTransport
from lm_deluge.usage import estimate_tokens
from lm_deluge.wire.http import HttpRequest

if TYPE_CHECKING:
    from lm_deluge.dispatch.scheduling.shared.link import LimiterLink

__all__ = ["CallPlanner", "Dispatcher"]

_MOST_OVERESTIMATE = 2.0
"""Estimated by actual tokens, at most. Prose has four to five characters a token, code and tables up to eight."""


class Dispatcher:
    """What all calls of a client share: models, limits, connections, the local cache and the budget.

    Args:
        models: Rows of the models that share the calls.
        fallback: Rows of the models that answer where none of the others can.
        options: The client's options.

    Raises:
        ConfigurationError: `model_limits` names a model that is in neither, or one key or URL is for several providers.
    """

    def __init__(self, models: tuple[ModelRow, ...], fallback: tuple[ModelRow, ...], options: ClientOptions) -> None:
        self.models = models
        self.fallback = fallback
        self.options = options
        self.rows = {row.id: row for row in (*fallback, *models)}
        options.check_models(self.rows)
        self.accounts = Accounts(
            (*models, *fallback),
            api_key=options.api_key,
            base_url=options.base_url,
            extra_headers=options.extra_headers,
        )
        self.budget = None if options.max_cost is None else Budget(options.max_cost, "the client")
        self.observers = ObserverGroup(options.observers)
        self._runners: WeakKeyDictionary[asyncio.AbstractEventLoop, Runner] = WeakKeyDictionary()
        self.transport: Transport | None = None
        self._limiter: LimiterLock | None = None
        self._limiter_link: LimiterLink | None = None
        self._sqlite_cache: SQLiteCache | None = None
        self._smallest_window = min((row.context_window or math.inf for row in self.rows.values()), default=math.inf)
        self._credits = [0.0] * len(models)  # of the weighted round-robin
        self._templates: dict[str, _Template] = {}  # of calls without options of their own

    def planner(self, call: CallOptions | None = None) -> CallPlanner:
        """Return a planner for calls with these options; planners without options (None) share their templates.

        Keys, base URLs and proxies are looked up once for each planner and model, and for each single stream.

        Raises:
            ConfigurationError: `prefer_model` is none of the client's models.
        """
        if call is None:
            return CallPlanner(self, NO_OPTIONS, self._templates)
        if call.prefer_model is not None and call.prefer_model not in self.rows:
            raise ConfigurationError(
                f"prefer_model={call.prefer_model!r} is none of the client's models",
                hint=f"Its models: {', '.join(self.rows)}.",
            )
        return CallPlanner(self, call, {})

    def runner(self) -> Runner:
        """Return the runner of the running event loop; the runners of all loops share one limiter."""
        return self._runners.get(asyncio.get_running_loop()) or self.make_runner()

    def make_runner(self, make: Callable[..., Runner] = Runner) -> Runner:
        """Make the runner of the running event loop.

        Args:
            make: `Runner`, or a function that adds arguments to it: a clock, timers, or random numbers for a test.
        """
        runner = build_runner(self.limiter(), self.options, self.models, self.fallback, self.accounts, make)
        self._runners[asyncio.get_running_loop()] = runner
        return runner

    def limiter(self) -> LimiterLock:
        """Return the limiter of all loops; it is made on first use."""
        if self._limiter is None:
            url, rows = self.options.limiter, self.rows.values()
            if url is None:
                self._limiter = LimiterLock(build_limiter(self.options, rows, self.accounts))
            else:
                self._limiter, self._limiter_link = build_shared_limiter(url, self.options, rows, self.accounts)
        return self._limiter

    def next_model(self) -> ModelRow:
        """Return the model of the next single stream: weighted round-robin over `models`."""
        if len(self.models) == 1:
            return self.models[0]
        weights = self.options.model_weights or [1.0] * len(self.models)
        credited = [credit + weight for credit, weight in zip(self._credits, weights, strict=True)]
        chosen = credited.index(max(credited))
        credited[chosen] -= sum(weights)
        self._credits = credited
        return self.models[chosen]

    @property
    def all_models(self) -> tuple[ModelRow, ...]:
        """The rows of all models, fallbacks last."""
        return (*self.models, *self.fallback)

    def models_for(self, conversation: Conversation) -> frozenset[str] | None:
        """Return the ids of the models whose context window may hold a prompt; None: of all models.

        Raises:
            ContextLengthError: None of the windows is large enough.
        """
        length = conversation.text_length()
        if length <= _MOST_OVERESTIMATE * self._smallest_window:  # a token has at least one character
            return None
        tokens = estimate_tokens(length)
        if tokens <= _MOST_OVERESTIMATE * self._smallest_window:
            return None
        rows = self.all_models if self.options.fallback_on_context else self.models
        fitting = [row.id for row in rows if tokens <= _MOST_OVERESTIMATE * (row.context_window or math.inf)]
        if fitting:
            return frozenset(fitting)
        largest = max(rows, key=lambda row: row.context_window or 0)
        raise ContextLengthError(
            f"the prompt has about {tokens:,} tokens, and the context window of {largest.id} has"
            f" {largest.context_window:,}; nothing was sent",
            hint="Shorten the conversation, or add a model with a larger window to the client.",
        )

    def shared_transport(self) -> Transport:
        """Return the transport; it is made on first use."""
        if self.transport is None:
            self.transport = AiohttpTransport()
        return self.transport

    def shared_cache(self) -> LocalCache | None:
        """Return the local cache that `local_cache` names; None without one."""
        option = self.options.local_cache
        if option is None or option is False:
            return None
        if option is not True and not isinstance(option, str | PathLike):
            return option
        if self._sqlite_cache is None:
            self._sqlite_cache = open_cache(None if option is True else option)
        return self._sqlite_cache

    async def close(self) -> None:
        """Close the idle connections of the running event loop and the client's own cache; give back shared slots."""
        if self.transport is not None:
            await self.transport.close()
        if self._limiter_link is not None:
            await self._limiter_link.close()
        if self._sqlite_cache is not None:
            await self._sqlite_cache.close()


class _Template(NamedTuple):
    """What calls with the same options to one model have in common."""

    call: Call  # without a conversation
    adapter: Adapter | None  # None: each call decides which API serves it
    api_keys: Mapping[str, str | None]
    timeouts: Timeouts
    plain_answers: PlainAnswers


class CallPlanner:
    """Plans the calls that have the same options. What does not depend on the prompt is settled once for each model.

    Args:
        dispatcher: What the calls of the client share.
        options: The options of the calls.
        templates: Settled before by planners with the same options, by model; new ones are added.

    Attributes:
        collect: How answers are requested whose events are not shown before their end.
    """

    def __init__(self, dispatcher: Dispatcher, options: CallOptions, templates: dict[str, _Template]) -> None:
        self._dispatcher = dispatcher
        self._options = options
        self._loops: AgentLoops | None = None
        params = dispatcher.options.sampling_params
        own = options.sampling_params
        params = params if own is None else merge_params(params, own)
        self._params = msgspec.structs.replace(params, **options.sampling) if options.sampling else params
        self._filters = compile_filters(options.filters) if options.filters else None
        self._templates = templates
        self._output = None if options.output is None else _output_rules(options)
        self.collect: Collect = _collect_of(dispatcher.options, options)
        self._access: dict[str, Access] = {}
        self._blank_specs: dict[bool, CallSpec] = {}  # by whether they deliver events
        self._adapters: dict[tuple[str, str], Adapter] = {}  # of calls with an output
        if options.loop.run_tools:
            self._options = options = options._replace(tools=prepared_tools(options.tools))
            is_forced = self._params.tool_choice not in (None, "auto", "none")
            self._loops = AgentLoops(options, self, self._for_rounds, is_forced=is_forced)

    def _for_rounds(self, options: CallOptions) -> CallPlanner:
        """Return the planner of later rounds of an agent loop, each of which is a single answer."""
        return CallPlanner(self._dispatcher, options._replace(loop=LoopOptions()), {})

    def spec(
        self,
        prompt: Prompt,
        *,
        prefer: str | None = None,
        delivers_events: bool = True,
        priority: Priority = "batch",
    ) -> CallSpec:
        """Return the call of a prompt.

        Args:
            prompt: Text, or a conversation.
            prefer: Id of the model that answers as long as it is available, if the options name none.
            delivers_events: If false, only the final response is used, so a stream that breaks restarts by default.
            priority: Whether a user waits for the call, if the options do not have it.

        Raises:
            InvalidPromptError: The prompt is empty, or no prompt.
            ContextLengthError: The prompt is far too long for every model of the client.
        """
        options = self._options
        own = () if options.max_cost is None else (Budget(options.max_cost, "the call"),)
        conversation = to_conversation(prompt)
        blank = self._blank_specs.get(delivers_events)
        if blank is None:
            blank = self._blank_specs[delivers_events] = self._blank_spec(delivers_events=delivers_events)
        return msgspec.structs.replace(
            blank,
            planner=self,
            conversation=conversation,
            models=self._dispatcher.models_for(conversation),
            prefer=options.prefer_model or prefer,
            priority=options.priority or priority,
            budgets=own + blank.budgets,
            plans={},
        )

    def _blank_spec(self, *, delivers_events: bool) -> CallSpec:
        """Return what all calls have in common, without the planner: a cycle of references would outlive the client."""
        client, budget = self._dispatcher.options, self._dispatcher.budget
        collect: Collect = "stream" if delivers_events else self.collect
        return CallSpec(
            planner=cast("CallPlanner", None),
            conversation=Conversation(),
            max_output_tokens=self._params.max_new_tokens,
            is_cached=client.local_cache not in (None, False),
            on_break=client.on_break or ("raise" if delivers_events else "restart"),
            budgets=() if budget is None else (budget,),
            min_tokens_per_second=client.min_tokens_per_second,
            delivers_events=delivers_events,
            collect=collect,
            postprocess=client.postprocess,
            observers=self._dispatcher.observers,
            open_with=self._open_with(),
        )

    def _open_with(self) -> OpenCall | None:
        """Return the function that makes the running calls; None: each is a single answer."""
        loop = None if self._loops is None else open_agent_call(self._loops)
        return loop if self._output is None else open_typed(self._output, loop)

    def checked(self, prompt: Prompt, *, prefer: str) -> CallSpec:
        """Return the call of a prompt, whose request to the preferred model is planned already.

        Keys, base URLs and proxies are looked up again, as they may change while the program runs.

        Raises:
            ConfigurationError: The call cannot be sent.
        """
        self._access.clear()
        spec = self.spec(prompt, prefer=prefer, priority="interactive")
        model = spec.prefer or prefer
        if spec.models is not None and model not in spec.models:
            model = next(row.id for row in self._dispatcher.all_models if row.id in spec.models)
            spec = msgspec.structs.replace(spec, prefer=model)
        if self._loops is not None and self._loops.has_servers:
            return spec  # its plan has the tools of the servers, which are connected on first use
        conversation = spec.conversation if self._loops is None else with_closed_calls(spec.conversation)
        plan = self.plan(model, conversation)
        if conversation is spec.conversation:  # otherwise its open calls run first
            spec.plans[model] = plan
        return spec

    def collected(self, prompt: Prompt) -> CallSpec:
        """Return the call of a prompt of which only the final response is used."""
        return self.spec(prompt, delivers_events=False)

    def plan(
        self,
        model: str,
        conversation: Conversation,
        collect: Collect = "stream",
        *,
        adapt: Callable[[Call], tuple[Call, Adapter, HttpRequest | None]] | None = None,
    ) -> CallPlan:
        """Return the plan of a request to a model: checked, addressed and encoded.

        Args:
            model: Id of the model.
            conversation: The prompt.
            collect: Whether the request may ask for a plain document.
            adapt: Returns the call as an API takes it, the adapter of that API, and the request where that is not built
                from the call, but passed on as a client sent it. Then the bytes of the response are kept, too.

        Raises:
            ConfigurationError: The model or its API cannot take the call, or there is no key for it.
        """
        template = self._template_of(model)
        access = self._access_of(model, template)
        call = msgspec.structs.replace(
            template.call,
            conversation=conversation,
            base_url=access.base_url,
            is_streamed=not template.plain_answers.are_requested(collect),
        )
        adapter, relayed = template.adapter, None
        if adapt is not None:
            call, adapter, relayed = adapt(call)
        elif adapter is None:
            call, adapter = settle_call(call)
        else:
            call = with_warnings(call, adapter)
        if call.output is not None and relayed is None:
            adapter = self._with_output(call, adapter)
        filters = self._filters
        return CallPlan(
            adapter=adapter,
            call=call,
            request=adapter.build_request(call) if relayed is None else relayed,
            keeps_bytes=relayed is not None,
            key=access.key,
            keys=access.keys,
            transport=self._dispatcher.shared_transport(),
            timeouts=template.timeouts,
            proxy=access.proxy,
            local_cache=None if filters is not None and filters.has_guard else self._dispatcher.shared_cache(),
            judge=None if self._output is None else partial(judged_response, kind=self._output.kind),
            filters=filters,
            plain_answers=template.plain_answers if self.collect == "auto" else None,
        )

    def settled(self, model: str) -> tuple[Call, Access, Timeouts]:
        """Return what the calls to a model have in common: parameters, address and key, timeouts.

        Raises:
            ConfigurationError: There is no key or no address.
        """
        template = self._template_of(model)
        return template.call, self._access_of(model, template), template.timeouts

    def _template_of(self, model: str) -> _Template:
        template = self._templates.get(model)
        if template is None:
            template = self._template_for(model)
            if model != SIMULATOR:  # its address changes with the process
                self._templates[model] = template
        return template

    def _access_of(self, model: str, template: _Template) -> Access:
        access = self._access.get(model)
        if access is None:
            access = self._access[model] = self._find_access(template)
        return access

    def _find_access(self, template: _Template) -> Access:
        provider, url, proxy = template.call.provider, template.call.base_url, self._dispatcher.options.proxy
        found: dict[str, Access] = {}
        for name, key in template.api_keys.items():
            found[name] = find_access(provider, template.call.model, base_url=url, api_key=key, proxy=proxy)
        first = next(iter(found.values()))
        return first if len(found) == 1 else first._replace(keys={name: each.key for name, each in found.items()})

    def _with_output(self, call: Call, adapter: Adapter) -> Adapter:
        """Return the adapter that asks a model for the output of the calls; it is made once for each model and API."""
        key = (call.model.id, adapter.name)
        if key not in self._adapters:
            self._adapters[key] = with_output_form(adapter, call)
        return self._adapters[key]

    def restored(self, response: APIResponse) -> APIResponse:
        """Return a response of a journal with its object as an instance of its type."""
        return response if self._output is None else restored_response(response, self._output.kind)

    def plan_rest(self, model: str, conversation: Conversation, max_new_tokens: int | None) -> CallPlan:
        """Return the plan of a request for the rest of an answer, with a limit of its own for new tokens."""
        options = self._options._replace(sampling={**self._options.sampling, "max_new_tokens": max_new_tokens})
        return CallPlanner(self._dispatcher, options, {}).plan(model, conversation)

    def _template_for(self, model: str) -> _Template:
        row, client, options = self._dispatcher.rows[model], self._dispatcher.options, self._options
        if row.price is None and not (options.max_cost is None and client.max_cost is None):
            raise ConfigurationError(
                f"{row.id} has no price, so max_cost cannot be enforced",
                hint="Give the model a row with a price: register_model(row, replace=True).",
            )
        call = build_blank_call(
            row,
            params=self._params,
            tools=options.tools,
            output=None if self._output is None else self._output.kind.schema,
            base_url=self._dispatcher.accounts.url_of(find_provider(row.provider)),
            cache=options.cache,
            background=client.background,
            extra_headers=client.extra_headers,
            extra_body={**(client.extra_body or {}), **options.extra_body},
            max_event_bytes=client.max_event_bytes,
        )
        timeouts = client.timeouts.for_model(is_reasoning=bool(row.capabilities.reasoning))
        return _Template(
            call=call,
            adapter=None if may_be_routed(call) else find_adapter(call.provider.adapter),
            api_keys=self._dispatcher.accounts.keys_of(call.provider),
            timeouts=timeouts,
            plain_answers=PlainAnswers(call, timeouts),
        )


def _collect_of(client: ClientOptions, call: CallOptions) -> Collect:
    """Return how answers are requested of which only the response is used; what needs a stream gets one."""
    collect = call.collect or client.collect
    needs_stream = not (client.hedge_after is None and client.min_tokens_per_second is None)
    if needs_stream or client.background or call.check_partial is not None:
        return "stream"
    has_budget = not (call.max_cost is None and client.max_cost is None)
    return "stream" if collect == "auto" and has_budget else collect  # only a stream ends when the budget is spent


def _output_rules(options: CallOptions) -> OutputRules:
    """Return the type of the answers, and what happens to invalid ones.

    Raises:
        ConfigurationError: `output` is no type, or no provider accepts its schema.
    """
    return OutputRules(
        kind=answer_type(options.output),
        max_retries=options.max_output_retries,
        # Text before a tool call is no answer, and only its end shows whether a call follows.
        stops_early=options.stop_on_invalid and not options.tools,
        check_partial=options.check_partial,
    )
