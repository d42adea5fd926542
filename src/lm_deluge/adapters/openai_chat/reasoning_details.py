"""Reasoning with signatures or encrypted data: OpenRouter's `reasoning_details`, and Databricks' pieces of content.

The next request must contain the data unchanged and in order, so this module joins the pieces of a stream into the data
that a plain response would have. https://openrouter.ai/docs/use-cases/reasoning-tokens and
https://docs.databricks.com/aws/en/machine-learning/model-serving/query-reason-models (2026-11)
"""

from __future__ import annotations

from typing import Any

__all__ = ["ReasoningDetails", "SignedReasoning"]

_GROWING = ("text", "summary", "data")


class ReasoningDetails:
    """Joins streamed pieces into details. Consecutive pieces with the same index and type belong to one detail."""

    def __init__(self) -> None:
        self._details: list[dict[str, Any]] = []
        self._pieces: list[dict[str, list[str]]] = []

    def add(self, piece: Any) -> str:
        """Add a piece; return its readable text, or an empty string."""
        if not isinstance(piece, dict):
            return ""
        growing = {name: piece[name] for name in _GROWING if isinstance(piece.get(name), str)}
        position = self._position(piece)
        for name, value in piece.items():
            if name not in growing and value is not None:
                self._details[position][name] = value
        for name, value in growing.items():
            self._pieces[position].setdefault(name, []).append(value)
        return growing.get("text") or growing.get("summary") or ""

    def _position(self, piece: dict[str, Any]) -> int:
        """Return the position of the detail that the piece continues; add a detail if the piece starts one."""
        if self._details:
            last = self._details[-1]
            if all(last.get(name) == piece.get(name) for name in ("index", "type")):
                return len(self._details) - 1
        self._details.append({})
        self._pieces.append({})
        return len(self._details) - 1

    def joined(self) -> list[dict[str, Any]]:
        """Return the joined details, in order."""
        return [
            {**detail, **{name: "".join(values) for name, values in pieces.items()}}
            for detail, pieces in zip(self._details, self._pieces, strict=True)
        ]


class SignedReasoning:
    """Joins streamed pieces of content of type `reasoning` into one. Its summary is a list of texts and encrypted data.

    The pieces of one text follow each other; its signature comes with the last one.
    """

    def __init__(self) -> None:
        self._entries: list[dict[str, Any]] = []
        self._pieces: list[list[str]] = []  # of the text of each entry

    def add(self, piece: dict[str, Any]) -> str:
        """Add a piece; return its readable text, or an empty string."""
        summary = piece.get("summary")
        entries = [entry for entry in summary if isinstance(entry, dict)] if isinstance(summary, list) else []
        return "".join(self._add_entry(entry) for entry in entries)

    def _add_entry(self, entry: dict[str, Any]) -> str:
        found = entry.get("text")
        text = found if isinstance(found, str) else ""
        last = self._entries[-1] if self._entries else None
        is_continued = "text" in entry and last is not None and "text" in last and not (text and last.get("signature"))
        if last is None or not is_continued:
            last = {"text": ""} if "text" in entry else {}
            self._entries.append(last)
            self._pieces.append([])
        signature = entry.get("signature")
        last.update({name: value for name, value in entry.items() if name not in ("text", "signature")})
        if isinstance(signature, str) and signature:
            last["signature"] = last.get("signature", "") + signature
        self._pieces[-1].append(text)
        return text

    def joined(self) -> dict[str, Any]:
        """Return the piece of content that a plain response would have."""
        texts = ("".join(pieces) for pieces in self._pieces)
        summary = [
            {**entry, "text": text} if "text" in entry else entry
            for entry, text in zip(self._entries, texts, strict=True)
        ]
        return {"type": "reasoning", "summary": summary}
