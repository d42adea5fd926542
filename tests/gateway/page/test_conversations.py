"""Conversations of the page: listed, searched, changed, exported and removed, each user's own."""

import datetime as dt
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.page.chat_page import TEXT, PageClient, open_chat_page
from lm_deluge.gateway.page.answers.prompts import title_of
from lm_deluge.gateway.page.export import attachment, branch_of, to_markdown
from lm_deluge.gateway.page.store.records import MessageRecord
from lm_deluge.simulator import Simulator


async def test_conversations_are_listed_in_pages_the_latest_first(page: PageClient) -> None:
    made = [await page.conversation(title=f"Number {number}") for number in range(5)]
    first = await page.json("GET", "conversations?limit=2")
    assert [each["id"] for each in first["conversations"]] == [made[4], made[3]]
    assert first["more"]
    before = first["conversations"][-1]["updated"]
    rest = await page.json("GET", f"conversations?limit=3&before={before}")
    assert [each["id"] for each in rest["conversations"]] == made[2::-1]
    assert not rest["more"]
    await page.answered(made[0])
    assert (await page.json("GET", "conversations"))["conversations"][0]["id"] == made[0]


@pytest.mark.parametrize("query", ["limit=0", "limit=x", "limit=-1", "before=yesterday", "before=1e3", "before=nan"])
async def test_wrong_pages_are_refused(page: PageClient, query: str) -> None:
    await page.json("GET", f"conversations?{query}", status=400)


async def test_a_conversation_is_changed(page: PageClient) -> None:
    conversation = await page.conversation(system="Old")
    answer = await page.answered(conversation)
    changes = {"title": "  A new \n title ", "system": "New", "settings": {"temperature": 0.1}}
    await page.json("PATCH", f"conversations/{conversation}", changes)
    await page.json("PATCH", f"conversations/{conversation}", {"head": answer["parent"]})
    found = await page.json("GET", f"conversations/{conversation}")
    assert (found["title"], found["system"], found["settings"]) == ("A new title", "New", {"temperature": 0.1})
    assert found["head"] == answer["parent"]
    await page.json("PATCH", f"conversations/{conversation}", {"head": "0" * 32}, status=404)
    for wrong in ({"title": 1}, {"owner": "x"}, {"settings": {"top_p": 2}}, {"title": "x" * 301}, []):
        await page.json("PATCH", f"conversations/{conversation}", wrong, status=400)
    await page.answered(conversation, "Again", parent=answer["id"])
    assert page.simulator.requests[-1].json["temperature"] == 0.1
    assert page.simulator.requests[-1].json["messages"][0]["content"] == "New"
    assert (await page.json("GET", f"conversations/{conversation}"))["title"] == "A new title"


async def test_the_search_finds_words_in_titles_and_messages(page: PageClient) -> None:
    by_title = await page.conversation(title="Grüße aus Köln")
    by_message = await page.conversation(title="Other")
    await page.answered(by_message, 'The "quick" fox_100% 東京タワー')

    async def found(query: str) -> list[str]:
        answer = await page.http.get("/page/api/conversations", params={"query": query})
        return [each["id"] for each in answer.json()["conversations"]]

    assert await found("köln".upper().replace("Ö", "ö")) == [by_title]
    assert await found("four") == [by_message]  # in the answer
    assert await found("uick") == [by_message]  # a part of a word
    assert await found('"quick"') == [by_message]
    assert await found("fox_100%") == [by_message]
    assert await found("x_1") == [by_message]
    assert await found("%") == [by_message]  # too short for the index
    assert await found("京タ") == [by_message]
    assert await found("OTHER four quick") == [by_message]  # in different places
    assert await found("four absent") == []
    assert await found("fox NEAR") == []
    assert set(await found("")) == {by_title, by_message}
    await page.json("DELETE", f"conversations/{by_message}", status=204)
    assert await found("four") == []


async def test_exports(page: PageClient) -> None:
    conversation = await page.conversation(system="Be brief.", title='A "title" über ÄÖ/x')
    answer = await page.answered(conversation, "Question")
    await page.answered(conversation, "Edited", parent=None)
    whole = await page.http.get(f"/page/api/conversations/{conversation}/export?format=json")
    assert whole.headers["content-disposition"].startswith('attachment; filename="A _title_ _ber ___x.json"; filename*')
    assert len(whole.json()["messages"]) == 4
    shown = await page.http.get(f"/page/api/conversations/{conversation}/export?format=markdown")
    assert shown.headers["content-type"] == "text/markdown; charset=utf-8"
    assert "## System\n\nBe brief.\n\n## User\n\nEdited\n\n## gpt-4o\n\nOne two three" in shown.text
    assert "Question" not in shown.text
    await page.json("PATCH", f"conversations/{conversation}", {"head": answer["id"]})
    other = await page.http.get(f"/page/api/conversations/{conversation}/export?format=markdown")
    assert "Question" in other.text
    await page.json("GET", f"conversations/{conversation}/export?format=pdf", status=400)


def test_every_kind_of_part_has_its_markdown() -> None:
    parts: list[dict[str, Any]] = [
        {"type": "reasoning", "text": "a\n\nb"},
        {"type": "tool", "id": "1", "name": "add", "arguments": {"x": 1}, "result": "``` 2", "error": None},
        {"type": "tool", "id": "2", "name": "cut", "arguments": '{"x', "result": None, "error": None},
        {"type": "source", "url": "https://a.example", "title": None},
        {"type": "image", "file_id": "1", "name": "a.png", "media_type": "image/png"},
    ]
    failed = msgspec.Raw(msgspec.json.encode({"type": "ServerError", "message": "It broke.", "retryable": True}))
    message = MessageRecord(
        id="1", parent=None, role="assistant", parts=msgspec.Raw(msgspec.json.encode(parts)), error=failed, created=0.0
    )
    found = {"title": "", "created": 0.0, "system": "", "head": None, "messages": [message]}
    assert to_markdown(found).decode() == (
        "# Conversation\n\n1970-01-01 00:00 UTC\n\n## Assistant\n\n> a\n>\n> b\n\n"
        '**add**\n\n```\n{\n  "x": 1\n}\n```\n\n````\n``` 2\n````\n\n**cut**\n\n```\n{"x\n```\n\n'
        "- [https://a.example](https://a.example)\n\n*image: a.png*\n\n*It broke.*\n"
    )


def test_the_branch_of_an_unknown_head_is_the_latest() -> None:
    raw = msgspec.Raw(b"[]")
    messages = [
        MessageRecord(id=name, parent=parent, role="user", parts=raw, created=0.0)
        for name, parent in (("a", None), ("b", "a"), ("c", "a"))
    ]
    assert [each.id for each in branch_of(messages, "b")] == ["a", "b"]
    assert [each.id for each in branch_of(messages, "gone")] == ["a", "c"]
    assert branch_of([], None) == []


@given(st.text(max_size=200))
def test_titles_are_one_short_line(text: str) -> None:
    title = title_of(text)
    assert len(title) <= 61
    assert "\n" not in title
    assert bool(title) == bool(text.strip())


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=50))
def test_names_of_files_never_break_the_header(name: str) -> None:
    header = attachment(name)
    assert header.isascii()
    assert header.isprintable()
    assert header.count('"') == 2


async def test_unknown_conversations_are_not_found(page: PageClient) -> None:
    one = f"conversations/{'0' * 32}"
    await page.json("GET", one, status=404)
    await page.json("PATCH", one, {"title": "x"}, status=404)
    await page.json("DELETE", one, status=404)
    await page.json("GET", f"{one}/export", status=404)
    await page.ask("0" * 32, status=404)


async def test_models_with_prices_and_capabilities(page: PageClient) -> None:
    found = await page.json("GET", "models")
    assert found["default"] == "gpt-4o"
    row = next(each for each in found["models"] if each["id"] == "claude-sonnet-5-5")
    assert (row["provider"], row["tools"], row["reasoning"]) == ("anthropic", True, True)
    assert 0 < row["input_price"] < row["output_price"]
    assert "high" in row["efforts"]
    assert not any(each["simulated"] for each in found["models"])


async def test_without_a_key_the_simulator_answers_and_the_page_knows(tmp_path: Path) -> None:
    async with Simulator(TEXT) as unused, open_chat_page(tmp_path, unused) as page:
        assert (await page.json("GET", "session"))["simulated"]
        found = await page.json("GET", "models")
        (only,) = found["models"]
        assert found["default"] == only["id"] == "simulator"
        assert only["simulated"]
        answer = await page.answered(await page.conversation(), models=("simulator",))
        assert answer["status"] == "complete"
        assert (answer["model"], answer["cost"]) == ("simulator", None)


def test_the_time_of_an_export_is_in_utc() -> None:
    moment = dt.datetime(2026, 11, 30, 15, 4, tzinfo=dt.UTC).timestamp()
    found = {"title": "T", "created": moment, "system": "", "head": None, "messages": []}
    assert to_markdown(found).decode() == "# T\n\n2026-11-30 15:04 UTC\n"


def test_the_text_of_tests_fits_one_title() -> None:
    assert title_of(TEXT) == "One two three, and four; that is the whole answer of the…"
