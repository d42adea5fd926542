"""The prompts of tables, without Ray."""

import pytest

from lm_deluge.errors import ConfigurationError, InvalidPromptError
from lm_deluge.ray.prompts import PromptColumns


def texts(columns: PromptColumns, *records: dict) -> list[list[tuple[str, str]]]:
    rows = columns.rows(records)
    return [[(each.role, each.completion) for each in row.conversation or ()] for row in rows]


def test_a_template_fills_in_columns_of_any_kind() -> None:
    columns = PromptColumns(template="{a} is {b}, {{not}} {a}")
    assert texts(columns, {"a": "x", "b": 1.5}) == [[("user", "x is 1.5, {not} x")]]


@pytest.mark.parametrize("template", ["no columns", "{}", "{a.b}", "{a[0]}", "{a", "a}", "{ a }"])
def test_a_template_that_names_no_columns_is_refused(template: str) -> None:
    with pytest.raises(ConfigurationError, match="the template"):
        PromptColumns(template=template)


def test_messages_of_arrow_lose_their_empty_fields() -> None:
    messages = [
        {"role": "system", "content": "Be brief.", "name": None},
        {"role": "user", "content": "Hi", "name": None},
    ]
    assert texts(PromptColumns(), {"messages": messages}) == [[("system", "Be brief."), ("user", "Hi")]]
    assert texts(PromptColumns("chat"), {"chat": messages}) == [[("system", "Be brief."), ("user", "Hi")]]


def test_the_system_message_is_for_rows_without_one() -> None:
    own = [{"role": "system", "content": "Own."}, {"role": "user", "content": "Hi"}]
    columns = PromptColumns("chat", system="Be brief.")
    assert texts(columns, {"chat": own}, {"chat": "Hi"}) == [
        [("system", "Own."), ("user", "Hi")],
        [("system", "Be brief."), ("user", "Hi")],
    ]


def test_a_row_without_a_prompt_has_an_error_and_the_others_have_none() -> None:
    rows = PromptColumns("text").rows([{"text": None}, {"text": ""}, {"text": "Hi"}])
    assert [type(row.error) for row in rows] == [InvalidPromptError, InvalidPromptError, type(None)]


def test_the_name_of_a_call_has_the_id_and_depends_on_the_prompt() -> None:
    columns = PromptColumns("text", id="key")
    first, second = columns.rows([{"key": 7, "text": "Hi"}, {"key": 8, "text": "Hi"}])
    assert first.call.startswith("7:")
    assert second.call.startswith("8:")
    assert columns.rows([{"key": 7, "text": "Hi", "other": 1}])[0].call == first.call
    assert columns.rows([{"key": 7, "text": "Ho"}])[0].call != first.call
    with pytest.raises(ConfigurationError, match="the same key"):
        columns.rows([{"key": 7, "text": "Hi"}, {"key": 7, "text": "Ho"}])


def test_a_dataset_without_the_columns_is_refused() -> None:
    PromptColumns().check(["messages"])
    PromptColumns(template="{a}").check(["a"])
    for columns in (PromptColumns(), PromptColumns("x"), PromptColumns(template="{x}"), PromptColumns("text", id="x")):
        with pytest.raises(ConfigurationError, match="the dataset has no column"):
            columns.check(["text"])
