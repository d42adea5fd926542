"""The options of a batch in its journal, and the message about those that differ."""

import pytest

from lm_deluge.dispatch.journal.options import describe_differences, shown_options

BASE = {"models": ["a", "b"], "system": "Be brief", "sampling": {"temperature": 0.5, "stop": ["END"], "top_p": None}}


def test_texts_of_the_user_are_not_shown() -> None:
    shown = shown_options(BASE)
    assert {name: shown[name] for name in ("models", "temperature")} == {"models": "a, b", "temperature": "0.5"}
    assert set(shown) == {"models", "system", "temperature", "stop"}
    assert "Be brief" not in str(shown)
    assert "END" not in str(shown)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({}, ""),
        ({"models": ["a"]}, "models were a, b and are a"),
        ({"system": None}, "system was set and is not"),
        ({"system": "Be long"}, "system is another one"),
        (
            {"sampling": {"temperature": 1, "top_p": 0.9}},
            "stop was set and is not; temperature was 0.5 and is 1; top p was not set and is 0.9",
        ),
        ({"provider_batch": True}, "provider batch was not set and is True"),
    ],
)
def test_what_differs_is_named(change: dict[str, object], words: str) -> None:
    assert describe_differences(shown_options(BASE), shown_options({**BASE, **change})) == words
