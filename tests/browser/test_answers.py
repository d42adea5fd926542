"""Answers in the page: as they arrive, stopped, resumed, cut and broken."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from selenium import webdriver
from selenium.webdriver.common.keys import Keys

from browser.chromium import Page
from browser.conftest import unused_page
from browser.cutting_relay import CuttingRelay
from browser.page_server import PageServer, page_server
from lm_deluge.events import Citation
from lm_deluge.simulator import Script


def test_the_first_answer(page: Page, server: PageServer) -> None:
    assert page.focused == "message"
    assert page.text("h1") == "New conversation"
    answer = page.ask("Hello")
    assert answer.startswith("Streaming sends each token as it is made.")
    assert page.texts(".markdown strong") == ["each token"]
    assert page.texts(".code-bar span:first-child") == ["python"]
    assert page.texts(".hljs-string") == ["'hello'"]
    assert page.text("h1") == "Hello"
    assert page.texts(".conversations a") == ["Hello"]
    usage = page.text(".usage")
    assert " in" in usage
    assert " out" in usage
    assert "tok/s" in usage
    assert "first " in usage
    assert "$" in usage  # the model has a price
    assert page.focused == "message"


def test_code_and_answers_are_copied(page: Page) -> None:
    page.script("navigator.clipboard.writeText = async (text) => { window.copied = text; }")
    page.ask("Hello")
    page.click(".copy-code")
    page.shows("Copied", "#announcements")
    assert page.script("return window.copied") == "print('hello')"
    page.click(".assistant [data-action=copy]")
    page.until(lambda: "**each token**" in page.script("return window.copied"))


def test_reasoning_is_folded(page: Page, server: PageServer) -> None:
    server.answers["Think"] = Script(reasoning="First **this**, then that.", text="Done.")
    page.ask("Think")
    assert page.texts(".reasoning summary") == ["Reasoning"]
    assert page.script("return document.querySelector('.reasoning .markdown').childElementCount") == 0
    page.click(".reasoning summary")
    page.shows("First this, then that.", ".reasoning")
    assert page.texts(".reasoning strong") == ["this"]


def test_tool_calls_and_sources(page: Page, server: PageServer) -> None:
    source = Citation(url="https://example.org/paris", title="Paris in numbers")
    calls = [("get_weather", {"city": "Paris"})]
    server.answers["Weather?"] = Script(text="I look.", tool_calls=calls, extra=[source])
    page.ask("Weather?")
    assert page.texts(".tool summary code") == ["get_weather"]
    page.script("document.querySelector('.tool').open = true")
    assert page.texts(".tool pre")[0] == '{\n  "city": "Paris"\n}'
    link = page.one(".source")
    assert link.text == "Paris in numbers"
    assert link.get_attribute("href") == "https://example.org/paris"
    assert link.get_attribute("rel") == "noopener noreferrer"
    assert link.get_attribute("target") == "_blank"


def test_stop_is_immediate_and_keeps_the_text(page: Page, server: PageServer) -> None:
    aborted = server.simulator.stats.aborted
    page.choose("holding")
    page.send("Go on")
    page.shows("Streaming sends", ".assistant .parts")
    assert page.all("#send:not([hidden])") == []
    page.click("#stop")
    page.shows("Stopped. What had arrived is kept.", ".assistant")
    page.settled()
    page.open("/" + page.script("return location.hash"))
    page.shows("Streaming sends", ".assistant .parts")
    page.shows("Stopped", ".assistant")
    page.until(lambda: server.simulator.stats.aborted == aborted + 1, "the end of the request to the provider")


def test_escape_stops(page: Page) -> None:
    page.choose("holding")
    page.send("Go on")
    page.shows("Streaming sends", ".assistant .parts")
    page.press(Keys.ESCAPE)
    page.shows("Stopped", ".assistant")


def test_a_reload_resumes_the_answer(page: Page) -> None:
    page.choose("pausing")
    page.send("Go on")
    page.shows("Streaming sends", ".assistant .parts")
    assert "That is all." not in page.text(".assistant .parts")
    page.driver.refresh()
    page.shows("Streaming sends", ".assistant .parts")
    page.settled()
    assert page.text(".assistant .parts").endswith("That is all.")
    assert len(page.all(".assistant .parts > *")) == 1  # once, not the stored part and the streamed one


def test_a_truncated_upstream_is_a_failure(page: Page) -> None:
    page.choose("cut")
    assert page.ask("Hello").startswith("Streaming sends")
    assert page.text(".failure-title") == "The answer was cut off"
    assert "What had arrived is kept." in page.text(".failure")
    assert "The answer failed." in page.text("#announcements")
    page.click(".failure button")
    page.until(lambda: page.texts(".assistant .branches span") == ["2 / 2"])
    page.settled()
    assert page.text(".failure-title") == "The answer was cut off"


def test_a_failure_before_the_first_token(page: Page) -> None:
    page.choose("refused")
    page.ask("Hello")
    assert page.text(".failure-title") == "The provider did not accept the key"
    assert "Incorrect API key provided." in page.text(".failure")
    assert "kept" not in page.text(".failure")


def test_a_message_that_the_server_does_not_take_stays_in_the_field(page: Page, server: PageServer) -> None:
    page.ask("Hello")
    server.fetch(f"/conversations/{page.script('return location.hash').removeprefix('#/c/')}", {}, "DELETE")
    page.send("And now?")
    page.shows("There is no such conversation", "#composer-problem")
    assert page.one("#message").get_attribute("value") == "And now?"
    assert page.one("#composer-problem button").text == "Try again"


@pytest.fixture
def relay(server: PageServer, browser: webdriver.Chrome) -> Iterator[CuttingRelay]:
    relay = CuttingRelay(urlsplit(server.url).port, most=900)
    server.run(relay.open)
    yield relay
    server.run(relay.close)


WORDS = " ".join(f"word{number}" for number in range(300))


def test_a_connection_that_breaks_is_opened_again_without_a_gap(
    relay: CuttingRelay, server: PageServer, browser: webdriver.Chrome
) -> None:
    server.answers["Count"] = WORDS
    page = unused_page(browser, relay.url)
    page.open()
    relay.cuts = 3
    assert page.ask("Count") == WORDS
    assert relay.broken == 3
    assert page.all(".failure") == []


def test_an_answer_whose_end_never_comes_is_broken_and_never_complete(
    relay: CuttingRelay, server: PageServer, browser: webdriver.Chrome
) -> None:
    server.answers["Count"] = WORDS
    page = unused_page(browser, relay.url)
    page.open()
    # The waits between the attempts, which bring nothing new, are ten seconds: here they are none.
    page.script(
        "const wait = setTimeout; window.setTimeout = (run, ms, ...rest) => wait(run, ms > 200 ? 0 : ms, ...rest)"
    )
    page.choose("holding")
    page.send("Count")
    page.shows("word0", ".assistant .parts")
    server.run(relay.drop)
    page.shows("could not be opened again", ".failure")
    assert page.text(".failure-title") == "The answer was cut off"
    assert "word0" in page.text(".assistant .parts")
    assert "complete" not in page.text("#announcements")


def test_a_stop_that_does_not_reach_the_server_is_reported(
    relay: CuttingRelay, server: PageServer, browser: webdriver.Chrome
) -> None:
    page = unused_page(browser, relay.url)
    page.open()
    page.choose("holding")
    page.send("Go on")
    page.shows("Streaming sends", ".assistant .parts")
    server.run(relay.drop)
    page.click("#stop")
    page.shows("The answer was not stopped. The server cannot be reached.", "#composer-problem")
    page.until(lambda: page.count(".is-running, .failure"))


def test_two_pages_follow_the_same_answer(page: Page, server: PageServer) -> None:
    page.choose("pausing")
    page.send("Go on")
    page.shows("Streaming sends", ".assistant .parts")
    first, path = page.driver.current_window_handle, page.script("return location.hash")
    page.driver.switch_to.new_window("tab")
    try:
        page.open(f"/{path}")
        page.settled()
        texts = [page.text(".assistant .parts")]
    finally:
        page.driver.close()
        page.driver.switch_to.window(first)
    page.settled()
    texts.append(page.text(".assistant .parts"))
    assert texts[0] == texts[1]
    assert texts[0].endswith("That is all.")


def test_screen_readers_hear_the_answer_in_sentences(page: Page, server: PageServer) -> None:
    page.script(
        "window.heard = []; const region = document.getElementById('announcements');"
        "new MutationObserver(() => heard.push(region.textContent))"
        ".observe(region, {childList: true, characterData: true, subtree: true})"
    )
    server.answers["Talk"] = " ".join(f"This is sentence {number}." for number in range(200))
    page.ask("Talk")
    heard = page.script("return window.heard")
    assert heard[0] == "gpt-5.4 is answering."
    assert heard[-1] == "The answer is complete."
    assert len(heard) < 10  # throttled: not one for each token
    assert page.script("return document.querySelector('#transcript [aria-live]')") is None


def test_an_answer_that_the_database_does_not_take_is_shown_with_a_note(
    browser: webdriver.Chrome, tmp_path: Path
) -> None:
    with page_server(tmp_path) as server:
        page = unused_page(browser, server.url)
        page.open()
        with sqlite3.connect(tmp_path / "page.db") as disk:
            disk.execute(
                "CREATE TRIGGER full BEFORE UPDATE ON deluge_page_messages WHEN NEW.status <> 'running'"
                " BEGIN SELECT RAISE(FAIL, 'database or disk is full'); END"
            )
        page.ask("Hello")
        for _ in range(2):
            page.shows("The server keeps it, and tries again.", ".assistant .note")
            page.shows("Streaming sends each token", ".assistant")
            page.driver.refresh()
        with disk:
            disk.execute("DROP TRIGGER full")
        disk.close()
        page.ask("And now?")
        page.driver.refresh()
        page.until(lambda: page.count(".assistant") == 2)
        assert page.count(".assistant .note") == 0
