"""A server with keys: the page asks for one, and no script can read it."""

from collections.abc import Callable, Iterator

import pytest
from selenium import webdriver
from selenium.webdriver.common.keys import Keys

from browser.chromium import Page
from browser.conftest import unused_page
from browser.page_server import PageServer, page_server


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory, browser: webdriver.Chrome) -> Iterator[PageServer]:
    with page_server(tmp_path_factory.mktemp("guarded"), key="ada") as running:
        yield running


@pytest.fixture
def door(browser: webdriver.Chrome, guarded: PageServer) -> Page:
    page = unused_page(browser, guarded.url)
    page.open()
    return page


def test_signing_in_and_out(door: Page, guarded: PageServer, axe: Callable[[Page, str], None]) -> None:
    assert door.focused == "key"
    assert not door.one("#sign-in").find_elements("css selector", ".composer")
    axe(door, "sign in")
    door.press("dk-wrong")
    door.press(Keys.ENTER)
    door.shows("key", "#sign-in-problem")
    assert door.one("#key").get_attribute("value") == ""
    door.press(guarded.key)
    door.press(Keys.ENTER)
    door.until(lambda: door.focused == "message")
    assert door.ask("Hello").startswith("Streaming")
    assert door.script("return document.cookie") == ""
    stored = door.script(
        "return JSON.stringify([{...localStorage}, {...sessionStorage}]) + document.documentElement.outerHTML"
    )
    assert guarded.key not in stored
    door.driver.refresh()
    door.until(lambda: door.all(".message"))
    door.script("document.getElementById('message').value = 'a draft'")
    door.click("#sign-out")
    door.until(lambda: door.focused == "key")
    assert door.count(".message") == 0
    assert door.script("return sessionStorage.length") == 0
    assert not door.one("#sign-in").find_elements("xpath", "//article[not(ancestor::*[@hidden])]")


def test_an_expired_session_asks_again_and_keeps_the_message(door: Page, guarded: PageServer) -> None:
    door.press(guarded.key)
    door.press(Keys.ENTER)
    door.until(lambda: door.focused == "message")
    door.driver.delete_all_cookies()
    door.send("Do not lose this")
    door.until(lambda: door.focused == "key")
    door.press(guarded.key)
    door.press(Keys.ENTER)
    door.until(lambda: door.focused == "message")
    assert door.one("#message").get_attribute("value") == "Do not lose this"
