"""Every family of models at every host, with every kind of call: it is built as the provider documents it, or refused
by name before anything is sent.

What the models accept and how the APIs write it are tables of their own, from the sources and not from the code:
`samples/family_facts.py` and `samples/api_forms.py`.
"""

from __future__ import annotations

import re
import tomllib
from functools import cache
from importlib import resources
from itertools import chain
from typing import Any

import pytest

from lm_deluge import Conversation
from lm_deluge.adapters.adapter import Call
from lm_deluge.adapters.catalog import find_adapter
from lm_deluge.api_requests.request import build_call
from lm_deluge.config import SamplingParams
from lm_deluge.errors import UnsupportedParameterError
from lm_deluge.models import registry
from lm_deluge.models.families import plain_name
from lm_deluge.models.rows import Capabilities, ModelRow
from lm_deluge.prompt.message import Message
from lm_deluge.prompt.tool import Tool
from samples.api_forms import ATOMS, EFFORTS, PDF, PNG, PREFILLED, SCHEMA, differences, expected_form
from samples.family_facts import FACTS, Fact, facts_of

FAMILIES = tomllib.loads(resources.files("lm_deluge.models").joinpath("families.toml").read_text("utf-8"))["family"]
LIMIT = 50_000  # tokens; the largest budget for thinking is smaller at each host

# Providers without rows of their own, that serve the models of another one.
DERIVED = {
    "openai": ("openai-chat", "openai-responses"),
    "azure": ("azure-deployment", "azure-responses"),
    "xai": ("xai-responses",),
    "gemini": ("gemini-interactions", "gemini-openai"),
    "vertex": ("vertex-express",),
    "openrouter": ("openrouter-responses",),
    "bedrock": ("bedrock-invoke",),
}
BOTH_APIS = ("openai", "azure")
ONE_API = {"openai-chat": "openai-responses", "azure-deployment": "azure-responses"}

SINGLE = [(atom,) for atom in ("tools", "temperature", "top_p", "stop", "prefill", "schema", "image", "pdf")]
WITH_TOOLS = [("tools", atom) for atom in ("required", "named", "parallel")]
LEVELS = [(f"effort {effort}",) for effort in EFFORTS]
TOGETHER = [
    *(("tools", f"effort {effort}") for effort in ("none", "high", "max")),
    ("tools", "required", "effort high"),
    ("temperature", "effort none"),
    ("temperature", "effort high"),
]
CALLS = [*SINGLE, *WITH_TOOLS, *LEVELS, *TOGETHER]

TOOL = Tool(name="weather", parameters={"type": "object", "properties": {"city": {"type": "string"}}})
PARAMS: dict[str, dict[str, Any]] = {
    "required": {"tool_choice": "required"},
    "named": {"tool_choice": "weather"},
    "parallel": {"parallel_tool_calls": False},
    "temperature": {"temperature": 0.3},
    "top_p": {"top_p": 0.97},  # Claude takes 0.95 and more while it thinks
    "stop": {"stop": ["END"]},
}


def conversation_of(atoms: tuple[str, ...]) -> Conversation:
    media: dict[str, Any] = {"image": PNG} if "image" in atoms else {"file": PDF} if "pdf" in atoms else {}
    conversation = Conversation.user("Count.", **media)
    return conversation.add(Message.assistant(PREFILLED)) if "prefill" in atoms else conversation


def call_of(row: ModelRow, atoms: tuple[str, ...]) -> Call:
    params: dict[str, Any] = {"max_new_tokens": LIMIT}
    for atom in atoms:
        params |= {"reasoning_effort": atom[7:]} if atom.startswith("effort ") else PARAMS.get(atom, {})
    return build_call(
        row,
        conversation_of(atoms),
        params=SamplingParams(**params),
        tools=[TOOL] if "tools" in atoms else None,
        output=SCHEMA if "schema" in atoms else None,
        base_url="https://host.test/v1",
    )


def effort_of(atoms: tuple[str, ...]) -> str | None:
    return next((atom[7:] for atom in atoms if atom.startswith("effort ")), None)


def is_taken(atom: str, fact: Fact, effort: str | None) -> bool | None:
    """Whether the model accepts a parameter in a call with this effort; None: the sources do not state it."""
    if atom.startswith("effort "):
        return None if fact.efforts is None else effort in fact.efforts
    support = {
        "temperature": fact.sampling,
        "top_p": fact.sampling,
        "stop": fact.stop,
        "required": fact.forced,
        "named": fact.forced,
        "prefill": fact.prefill,
    }.get(atom)
    if support == "off":
        # A model may reason without an effort; what the row does not state is left to the provider.
        reasons = fact.reasons if effort is None else effort != "none"
        return None if reasons is None else not reasons
    if support is None:
        return True if fact.takes is not None and atom in fact.takes else None
    return support in ("yes", "ignored")


def serving_api(row: ModelRow, fact: Fact, atoms: tuple[str, ...]) -> tuple[str, bool]:
    """Return the API that the sources want for a call, and whether the provider of the row has only another one."""
    api = registry.find_provider(row.provider).adapter
    needs, effort = fact.needs_responses or (), effort_of(atoms)
    reasons = fact.reasons if effort is None else effort != "none"
    is_needed = (
        "all" in needs or ("tools" in needs and "tools" in atoms and reasons) or ("max" in needs and effort == "max")
    )
    if not is_needed or row.provider not in (*BOTH_APIS, *ONE_API):
        return api, False
    return "openai-responses", row.provider in ONE_API


def check_call(row: ModelRow, atoms: tuple[str, ...]) -> None:
    name = row.name.lower()
    fact = facts_of(name, row.provider)
    api, is_elsewhere = serving_api(row, fact, atoms)
    forms = {atom: expected_form(api, atom, name=name, provider=row.provider, limit=LIMIT) for atom in atoms}
    taken = {atom: forms[atom] is not None and is_taken(atom, fact, effort_of(atoms)) for atom in atoms}
    where = f"{row.id} with {' and '.join(atoms)}"
    refusal: UnsupportedParameterError | None = None
    try:
        call = call_of(row, atoms)
        request = find_adapter(call.provider.adapter).build_request(call)
    except UnsupportedParameterError as error:
        refusal = error
    if refusal is not None:
        check_refusal(row, refusal, taken, where, is_elsewhere=is_elsewhere)
        return
    assert False not in taken.values(), f"{where} is built, but the model does not take {taken}"
    assert not is_elsewhere, f"{where} is built for an API that rejects it"
    assert call.provider.adapter == api, where
    assert call.model.id == row.id
    form = dict(chain.from_iterable((forms[atom] or {}).items() for atom in atoms))
    assert differences(request.body, form) == {}, where
    ignored = [f"{atom}_ignored" for atom in atoms if fact.sampling == "ignored" and atom in ("temperature", "top_p")]
    assert list(call.warnings) == ignored, where


def check_refusal(
    row: ModelRow, error: UnsupportedParameterError, taken: dict[str, bool | None], where: str, *, is_elsewhere: bool
) -> None:
    """Check that the error names the model, and a parameter that the sources do not know to be accepted."""
    assert is_elsewhere or not all(taken.values()), f"{where} is refused: {error}"
    assert row.id in str(error), where
    if is_elsewhere and f"{ONE_API[row.provider]}:{row.name}" in str(error):
        return
    word = error.parameter.partition("=")[0].split()[0]
    refused = {ATOMS[atom.partition(" ")[0]] for atom, able in taken.items() if not able}
    assert word.removesuffix("s") in {each.removesuffix("s") for each in refused}, f"{where}: {error}"


@cache
def all_rows() -> tuple[ModelRow, ...]:
    """Return the rows that are not retired, and those of derived providers."""
    rows = []
    for row in registry.list_models():
        if row.status == "retired" or row.id == registry.SIMULATOR:
            continue
        others = (
            each for each in DERIVED.get(row.provider, ()) if each != "bedrock-invoke" or "anthropic." in row.name
        )
        derived = (registry.find_model(f"{provider}:{row.name}") for provider in others)
        # A name that no maker has is that of an unknown model, at a provider without rows.
        rows += [row, *(each for each in derived if each.capabilities != Capabilities())]
    return tuple(rows)


@cache
def alike() -> dict[str, ModelRow]:
    """Return for the id of each row one row of those that are alike at its provider.

    Bedrock writes parameters by the vendor in the name.
    """
    first: dict[tuple[str, ...], ModelRow] = {}
    found = {}
    for row in all_rows():
        vendor = row.name.rpartition(".")[0].rpartition(".")[2] if row.provider == "bedrock" else ""
        fact = facts_of(row.name.lower(), row.provider)
        found[row.id] = first.setdefault((row.provider, vendor, repr(row.capabilities), repr(fact)), row)
    return found


def rows_of(family: dict[str, Any]) -> dict[str, ModelRow]:
    """Return a row for each host of a family, and each row of the host that differs from the others, by id."""
    pattern = re.compile(rf"(?:{family['names']})(?![\w.])")
    hosts = family.get("hosts")
    rows = (row for row in all_rows() if not hosts or row.provider in hosts)
    chosen = (alike()[row.id] for row in rows if pattern.match(plain_name(row.name)))
    return {row.id: row for row in chosen}


@cache
def check_row(row_id: str) -> None:
    """Check all calls to a row, once: most rows belong to several families."""
    row = registry.find_model(row_id)
    for atoms in CALLS:
        check_call(row, atoms)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: f"{family['names'][:40]} {family.get('hosts', '')}")
def test_each_call_is_built_as_documented_or_refused_by_name(family: dict[str, Any]) -> None:
    for row_id in rows_of(family):
        check_row(row_id)


def test_every_effort_of_a_row_is_stated_by_a_source() -> None:
    for row in all_rows():
        if row.capabilities.reasoning_efforts:
            fact = facts_of(row.name.lower(), row.provider)
            assert fact.efforts is not None, row.id
            assert set(fact.efforts) == set(row.capabilities.reasoning_efforts), row.id


def test_every_fact_is_about_a_model() -> None:
    rows = [row for row in registry.list_models() if row.id != registry.SIMULATOR]
    for fact in FACTS:
        assert fact.source, fact
        pairs = ((row.name.lower(), row.provider) for row in (*rows, *all_rows()))
        assert any(re.search(fact.names, name) and (not fact.hosts or host in fact.hosts) for name, host in pairs), fact
