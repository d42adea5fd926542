"""Notices about an answer that the command prints after it."""

from __future__ import annotations

from lm_deluge.cli.render.status_line import notes_of
from lm_deluge.response import APIResponse


def test_a_refusal_has_its_category_and_explanation() -> None:
    details = {"type": "refusal", "category": "cyber", "explanation": "Blocked\x1b[2J by a policy.", "other": 5}
    first, category, explanation = notes_of(APIResponse(finish_reason="refusal", finish_details=details))
    assert first == "The model refused to answer."
    assert category == "The provider's category: cyber"
    assert explanation.startswith("The provider's explanation: Blocked")
    assert "\x1b" not in explanation


def test_values_of_wrong_types_are_reported() -> None:
    (note,) = notes_of(APIResponse(finish_reason="stop", warnings=("wrong_type", "no_done")))
    assert "unexpected types" in note
