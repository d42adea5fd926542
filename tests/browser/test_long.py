"""Long conversations and long answers: the work per frame, the scroll position and the memory stay bounded."""

import json
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium import webdriver

from browser.chromium import Page
from browser.page_server import PageServer, page_server

MESSAGES = 2000
PARAGRAPH = "A **paragraph** of a long conversation with `code` and [a link](https://example.org).\n\n- one\n- two\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("long")


@pytest.fixture(scope="module")
def server(folder: Path, browser: webdriver.Chrome) -> Iterator[PageServer]:
    with page_server(folder) as running:
        yield running


def add_messages(database: Path, conversation: str, number: int) -> None:
    """Store a conversation of so many messages, as if they had been sent."""
    rows = []
    for at in range(number):
        role = "user" if at % 2 == 0 else "assistant"
        parts = json.dumps([{"type": "text", "text": f"Message {at}. {PARAGRAPH}"}])
        parent = f"m{at - 1}" if at else None
        model = None if role == "user" else "gpt-5.4"
        now = time.time() + at
        rows.append((f"m{at}", conversation, parent, role, parts, "", "", model, "complete", now, "", now))
    with sqlite3.connect(database, timeout=20) as connection:
        connection.executemany(
            "INSERT INTO deluge_page_messages"
            " (id, conversation, parent, role, parts, upstream, text, model, status, created_at, server, saved_at)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            rows,
        )
        connection.execute(
            "UPDATE deluge_page_conversations SET head = ? WHERE id = ?", (f"m{number - 1}", conversation)
        )
    connection.close()


def test_two_thousand_messages_open_at_their_end_and_render_as_they_are_read(
    page: Page, server: PageServer, folder: Path
) -> None:
    conversation = server.fetch("/conversations", {"title": "Long"})["id"]
    add_messages(folder / "page.db", conversation, MESSAGES)
    page.open(f"/#/c/{conversation}")
    page.until(lambda: len(page.all(".message")) == MESSAGES)
    page.shows(f"Message {MESSAGES - 1}.", "[data-id=m1999] .parts")
    # Rendered is what is near; the other messages have their text, for the search of the browser.
    rendered = page.script("return document.querySelectorAll('.message .parts').length")
    assert rendered <= 40
    assert page.script("return document.querySelector('[data-id=m0] .stub').textContent").startswith("Message 0.")
    assert page.script(
        "const t = document.getElementById('transcript'); return t.scrollHeight - t.scrollTop - t.clientHeight < 40"
    )
    page.script("document.querySelector('[data-id=m0]').scrollIntoView()")
    page.until(lambda: page.texts("[data-id=m0] .plain"))
    assert page.script("return document.querySelectorAll('.message .parts').length") <= 100
    assert page.one(".jump")
    page.click(".jump")
    page.until(lambda: not page.all(".jump:not([hidden])"))


GROW = """
const [total, step] = given;
const version = document.querySelector('script[type=module]').src.replace(/scripts\\/.*/, '');
const { GrowingMarkdown } = await import(version + 'scripts/text/growing_markdown.js');
const text = makeText(total);
const view = new GrowingMarkdown();
document.getElementById('transcript').append(view.element);
let added = 0;
const size = (node) => 1 + (node.querySelectorAll?.('*').length ?? 0);
const observer = new MutationObserver((records) => {
  for (const { addedNodes } of records) for (const node of addedNodes) added += size(node);
});
observer.observe(view.element, { childList: true, subtree: true });
let early = null;
for (let end = step; end < text.length + step; end += step) {
  view.update(text.slice(0, end));
  early ??= end > 2000 ? view.element.querySelector('.block') : null;
}
view.update(text, { isFinal: true });
await new Promise((done) => setTimeout(done));
const whole = new GrowingMarkdown();
whole.update(text, { isFinal: true });
const found = {
  added, updates: Math.ceil(text.length / step), blocks: view.element.querySelectorAll('.block').length,
  nodes: view.element.querySelectorAll('*').length, isKept: early.isConnected,
  isSame: view.element.textContent === whole.element.textContent,
};
view.element.remove();
return found;
"""

PARAGRAPHS = "const makeText = (n) => 'Paragraph **x** of the answer, with `code` in it.\\n\\n'.repeat(n);"
ONE_CODE_BLOCK = "const makeText = (n) => '```python\\n' + 'x = 1  # a line of code\\n'.repeat(n) + '```\\n\\nEnd.';"
ONE_PARAGRAPH = "const makeText = (n) => 'Word '.repeat(n);"


def test_only_the_open_block_of_a_long_answer_is_rendered_again(page: Page) -> None:
    """100,000 tokens are about 400 kB: the nodes that are made grow with the text, not with its square."""
    found = page.script_async(PARAGRAPHS + GROW, 8000, 400)
    assert found["isKept"]
    assert found["isSame"]
    # Each update makes what is new, and the open block again.
    assert found["added"] <= 4 * found["nodes"] + 20 * found["updates"]


@pytest.mark.parametrize("make", [ONE_CODE_BLOCK, ONE_PARAGRAPH], ids=["code", "paragraph"])
def test_one_long_block_is_rendered_less_often_the_longer_it_is(page: Page, make: str) -> None:
    found = page.script_async(make + GROW, 6000, 300)
    assert found["isSame"]
    assert found["updates"] >= 100
    assert found["added"] <= 20 * max(found["nodes"], 100)  # a hundred times the nodes, if each update made them all


def test_a_growing_answer_does_not_move_what_is_read(page: Page, server: PageServer) -> None:
    page.size(1000, 500)
    server.answers["Grow"] = "Line.\n\n" * 60
    page.ask("Grow")
    assert page.script("const t = document.getElementById('transcript'); return t.scrollTop > 500")
    page.choose("pausing-later")
    page.send("Grow")
    page.until(lambda: page.count(".message.assistant") == 2 and "Line." in page.texts(".assistant .parts")[-1])
    page.script("document.getElementById('transcript').scrollTop = 300")
    page.one(".jump")
    page.settled(2)
    assert page.script("return document.getElementById('transcript').scrollTop") == 300
    assert page.focused == "message"


def heap(page: Page) -> dict[str, float]:
    """Return the memory of the page after its garbage was collected."""
    for _ in range(3):
        page.driver.execute_cdp_cmd("HeapProfiler.collectGarbage", {})
        time.sleep(0.05)  # the collector runs beside the page
    found = page.driver.execute_cdp_cmd("Performance.getMetrics", {})["metrics"]
    return {each["name"]: each["value"] for each in found}


def test_fifty_answers_leave_no_memory(page: Page) -> None:
    page.driver.execute_cdp_cmd("Performance.enable", {})

    def answers(number: int) -> dict[str, float]:
        for _ in range(number):
            page.script(
                "document.getElementById('message').value = 'Hello';document.getElementById('composer').requestSubmit()"
            )
            page.until(lambda: page.count("#stop:not([hidden])") == 1 or page.count(".message") > 0)
            page.settled()
        page.script("document.getElementById('new-conversation').click()")
        page.until(lambda: page.count(".message") == 0)
        return heap(page)

    before = answers(5)
    after = answers(50)
    assert after["Nodes"] <= before["Nodes"] + 300  # one more conversation in the list
    assert after["JSEventListeners"] <= before["JSEventListeners"] + 50
    assert after["JSHeapUsedSize"] <= before["JSHeapUsedSize"] + 1_000_000
