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


@pytest.mark.parametrize(
    ("template", "text"),
    [("{0}", "zero"), ("{the price:.1f} EUR", "2.5 EUR"), ("{a-b!r}", "'x'"), ("{{{0}}}", "{zero}")],
)
def test_a_template_names_columns_as_tables_do(template: str, text: str) -> None:
    assert texts(PromptColumns(template=template), {"0": "zero", "the price": 2.5, "a-b": "x"}) == [[("user", text)]]


def test_a_cell_that_does_not_fit_its_format_is_an_error_of_its_row() -> None:
    rows = PromptColumns(template="{a:.2f}").rows([{"a": "secret"}, {"a": [1]}, {"a": 1}])
    assert [type(row.error) for row in rows] == [InvalidPromptError, InvalidPromptError, type(None)]
    assert str(rows[0].error) == "the column 'a' of the row does not fit the format '.2f'."


@pytest.mark.parametrize(
    "template",
    *[["no columns", "{}", "{a.b}", "{a[0]}", "{a", "a}", "{ a }", '{"a": 1}', "{a!z}", "{a:{b}}", "{a, b}"]],
)
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
    with pytest.raises(ConfigurationError, match="a row has no key"):
        columns.rows([{"key": None, "text": "Hi"}, {"key": 7, "text": "Ho"}])
    with pytest.raises(ConfigurationError, match="the same key"):
        columns.rows([{"key": 7, "text": "Hi"}, {"key": 7, "text": "Ho"}])


def test_a_dataset_without_the_columns_is_refused() -> None:
    PromptColumns().check(["messages"])
    PromptColumns(template="{a}").check(["a"])
    for columns in (PromptColumns(), PromptColumns("x"), PromptColumns(template="{x}"), PromptColumns("text", id="x")):
        with pytest.raises(ConfigurationError, match="the dataset has no column"):
            columns.check(["text"])


@pytest.mark.parametrize(
    ("columns", "needed"),
    [
        (PromptColumns(), ["prompt", "messages", "url"]),
        (PromptColumns("text"), ["text"]),
        (PromptColumns("text", id="id"), ["id", "text"]),
        (PromptColumns(template="{text} {id} {text}"), ["id", "text"]),
    ],
)
def test_only_the_columns_of_the_prompts_are_converted(columns: PromptColumns, needed: list[str]) -> None:
    assert columns.needed(["id", "image", "prompt", "text", "messages", "url"]) == needed


def test_a_body_of_arrow_loses_its_empty_fields() -> None:
    body = {"model": "gpt-5.4", "messages": [{"role": "user", "content": "Hi"}]}
    of_arrow = {**body, "temperature": None, "response_format": None, "metadata": {"a": None}}
    rows = [PromptColumns().rows([{"body": each}])[0] for each in (body, of_arrow)]
    assert rows[0].error is rows[1].error is None
    assert (rows[0].params, rows[0].output) == (rows[1].params, rows[1].output)
    assert rows[1].extra_body == {"metadata": {}}


@pytest.mark.parametrize("value", [7, 1.5, True, b"bytes", {"a": 1}, [1]])
def test_a_prompt_of_another_kind_is_an_error_of_its_row(value: object) -> None:
    rows = PromptColumns("text").rows([{"text": value}, {"text": "Hi"}])
    assert isinstance(rows[0].error, InvalidPromptError)
    assert rows[1].error is None
