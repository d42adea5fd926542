"""The filters of a call, checked and compiled once; the state of each response is made from them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from lm_deluge.errors import ConfigurationError
from lm_deluge.filters.patterns import Pattern, PatternMatcher
from lm_deluge.filters.rules import Channel, Filter, Guard, RaiseAt, ReasoningTags, Redact, StopAt
from lm_deluge.filters.scanner import RuleFinder
from lm_deluge.wire.literal_matcher import LiteralMatcher, Literals

__all__ = ["CompiledFilters", "SearchPlan", "compile_filters"]

_KINDS = (StopAt, Redact, RaiseAt, ReasoningTags, Guard)


class SearchPlan(NamedTuple):
    """What is searched in one channel.

    Attributes:
        literals: The automaton of all literals; None without any.
        literal_rules: The number of the rule of each literal.
        patterns: The patterns, with the numbers of their rules.
    """

    literals: Literals | None
    literal_rules: tuple[int, ...]
    patterns: tuple[tuple[int, Pattern], ...]

    def finders(self) -> tuple[RuleFinder, ...]:
        """Return finders for one text."""
        found = [RuleFinder(PatternMatcher(pattern), (rule,)) for rule, pattern in self.patterns]
        if self.literals is not None:
            found.append(RuleFinder(LiteralMatcher(self.literals), self.literal_rules))
        return tuple(found)


class CompiledFilters:
    """The filters of a call.

    Attributes:
        rules: All filters, in the order that the user gave them; the number of a rule is its index.
        guards: The guards among them.
        text: What is searched in the answer, opening tags included.
        tagged: What is searched after the opening tag of a rule, its closing tag included, by the number of the rule.
        spoken: What is searched in refusals and transcripts.
        reasoning: What is searched in reasoning that the provider marks.
        arguments: What is searched in the arguments of tool calls.
        values: What is searched in texts beside the answer, such as the title of a source: nothing that stops.
        context: Text before the answer, which patterns may look at.
        has_guard: Whether a function of the user takes part, so that equal filters may filter differently.
        digest: A hash of the filters, for keys of caches and fingerprints of journals.
    """

    def __init__(self, rules: Sequence[Filter], context: str = "") -> None:
        self.rules = tuple(rules)
        self.guards = tuple(rule for rule in rules if isinstance(rule, Guard))
        tags = {number: rule for number, rule in enumerate(rules) if isinstance(rule, ReasoningTags)}
        self.text = _plan(self.rules, "text", {number: rule.opening for number, rule in tags.items()})
        self.tagged = {number: _plan(self.rules, "reasoning", {number: rule.closing}) for number, rule in tags.items()}
        self.spoken = _plan(self.rules, "text")
        self.reasoning = _plan(self.rules, "reasoning")
        self.arguments = _plan(self.rules, "arguments")
        values = [rule if isinstance(rule, Redact | RaiseAt) else None for rule in rules]
        self.values = _plan(values, "text")
        self.context = context
        self.has_guard = bool(self.guards)
        keys = [rule.key() for rule in self.rules]
        self.digest = hashlib.sha256(repr(keys).encode("utf-8", "surrogatepass")).hexdigest()

    def after(self, context: str) -> CompiledFilters:
        """Return the filters for an answer that goes on after this text."""
        other = object.__new__(CompiledFilters)
        other.__dict__.update(self.__dict__, context=context)
        return other

    def describe(self, rule: int) -> str:
        """Return the name of a rule's class."""
        return type(self.rules[rule]).__name__


def compile_filters(filters: Iterable[Filter] | None) -> CompiledFilters | None:
    """Return the filters of a call; None without any.

    Raises:
        ConfigurationError: One of them is no filter.
    """
    if filters is None:
        return None
    given: object = filters
    if isinstance(given, (str, bytes, *_KINDS)) or not isinstance(given, Iterable):
        raise ConfigurationError("filters is a list of filters", hint='Write filters=[StopAt("END")], for example.')
    rules = list(filters)
    for rule in rules:
        if not isinstance(rule, _KINDS):
            raise ConfigurationError(
                f"{type(rule).__name__} is no filter",
                hint="lm_deluge.filters has StopAt, Redact, RaiseAt, ReasoningTags and Guard.",
            )
    return CompiledFilters(rules) if rules else None


def _plan(rules: Sequence[Filter | None], channel: Channel, tags: Mapping[int, str] | None = None) -> SearchPlan:
    """Return what is searched in a channel, the rules in their order.

    Args:
        rules: The rules; None for one that takes no part.
        channel: The channel.
        tags: The tag to search, by the number of the rule.
    """
    literals: list[tuple[int, str]] = []
    patterns: list[tuple[int, Pattern]] = []
    for number, rule in enumerate(rules):
        if tags is not None and number in tags:
            literals.append((number, tags[number]))
        elif isinstance(rule, StopAt) and rule.covers(channel):
            literals += [(number, stop) for stop in rule.stops]
        elif isinstance(rule, Redact | RaiseAt) and rule.covers(channel):
            if rule.literal is not None:
                literals.append((number, rule.literal))
            if rule.pattern is not None:
                patterns.append((number, rule.pattern))
    automaton = Literals([text for _, text in literals]) if literals else None
    return SearchPlan(automaton, tuple(number for number, _ in literals), tuple(patterns))
