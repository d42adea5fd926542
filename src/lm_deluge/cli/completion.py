"""Completion of the names of models in shells."""

from __future__ import annotations

import click
from click.shell_completion import CompletionItem

__all__ = ["complete_model"]


def complete_model(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Return the models that start with a text, and the providers, which take any model of theirs.

    bash takes a colon for the end of a word, unless COMP_WORDBREAKS has none: docs/command-line.md.
    """
    from lm_deluge.errors import DelugeError
    from lm_deluge.models.registry import list_models, list_providers

    try:
        names = [row.id for row in list_models()] + [f"{row.id}:" for row in list_providers()]
    except DelugeError:  # the user's own file of models is invalid: the command itself reports it
        return []
    return [CompletionItem(name) for name in names if name.startswith(incomplete)]
