"""Models in the form that Google's clients read: https://ai.google.dev/api/models."""

from __future__ import annotations

from typing import Any

from lm_deluge.models.rows import ModelRow

__all__ = ["google_list", "google_model"]

JSON = dict[str, Any]


def google_list(rows: list[tuple[str, ModelRow]]) -> JSON:
    """Return the list of models."""
    return {"models": [google_model(name, row) for name, row in rows]}


def google_model(name: str, row: ModelRow) -> JSON:
    """Return one model."""
    limits = {"inputTokenLimit": row.context_window, "outputTokenLimit": row.max_output_tokens}
    return {
        "name": f"models/{name}",
        "displayName": name,
        **{key: limit for key, limit in limits.items() if limit is not None},
        "supportedGenerationMethods": ["generateContent", "countTokens"],
    }
