"""OpenRouter's `reasoning_details`: reasoning with signatures or encrypted data.

The next request must contain the details unchanged and in order, so this module joins the pieces of a stream into the
details that a plain response would have. https://openrouter.ai/docs/use-cases/reasoning-tokens
"""

from __future__ import annotations

from typing import Any

__all__ = ["ReasoningDetails"]

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
