"""OpenRouter's `reasoning_details`: pieces of reasoning with signatures or encrypted data.

https://openrouter.ai/docs/use-cases/reasoning-tokens: they are to be sent back unchanged and in order on the next
turn, so the pieces of a stream are joined here into the details that a plain answer would have.
"""

from __future__ import annotations

from typing import Any

__all__ = ["ReasoningDetails"]

_GROWING = ("text", "summary", "data")


class ReasoningDetails:
    """Joins the pieces of each detail, known by its index and type."""

    def __init__(self) -> None:
        self._details: list[dict[str, Any]] = []
        self._pieces: list[dict[str, list[str]]] = []

    def add(self, piece: Any) -> str:
        """Take one piece; return the readable text in it."""
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
        """Find the detail that the piece continues: the last one, if index and type are the same."""
        if self._details:
            last = self._details[-1]
            if all(last.get(name) == piece.get(name) for name in ("index", "type")):
                return len(self._details) - 1
        self._details.append({})
        self._pieces.append({})
        return len(self._details) - 1

    def joined(self) -> list[dict[str, Any]]:
        """Return the whole details, in order."""
        return [
            {**detail, **{name: "".join(values) for name, values in pieces.items()}}
            for detail, pieces in zip(self._details, self._pieces, strict=True)
        ]
