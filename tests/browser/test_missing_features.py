"""What browsers lack on plain HTTP beyond 127.0.0.1, and what users have blocked: the page does without it."""

from collections.abc import Callable, Iterator

import pytest
from selenium import webdriver
from selenium.webdriver.common.keys import Keys

from browser.chromium import Page
from browser.conftest import unused_page
from browser.page_server import PageServer

WITHOUT = {
    "clipboard": "Object.defineProperty(navigator, 'clipboard', {value: undefined});"
    "document.execCommand = (name) => { window.copied = document.activeElement.value; return window.allows; };",
    "random ids": "delete Crypto.prototype.randomUUID;",
    "storage": "for (const name of ['localStorage', 'sessionStorage']) Object.defineProperty(window, name,"
    " {get() { throw new DOMException('The operation is insecure.', 'SecurityError'); }});",
}


@pytest.fixture
def without(browser: webdriver.Chrome, server: PageServer) -> Iterator[Callable[[str], Page]]:
    """Return a function that opens the page in a browser without a feature."""
    added: list[str] = []

    def open_without(feature: str) -> Page:
        page = unused_page(browser, server.url)
        script = {"source": WITHOUT[feature]}
        added.append(browser.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", script)["identifier"])
        page.open()
        return page

    yield open_without
    for name in added:
        browser.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", {"identifier": name})


@pytest.mark.parametrize("feature", WITHOUT)
def test_the_page_works_without(without: Callable[[str], Page], feature: str) -> None:
    page = without(feature)
    assert page.ask("Hello").startswith("Streaming sends each token")
    for keys in (".", ",", "/"):
        page.press(Keys.CONTROL, keys)
        page.one("dialog")
        page.press(Keys.ESCAPE)
        page.until(lambda: not page.all("dialog"))
    page.click("#switch-theme")
    page.driver.refresh()
    page.until(lambda: page.count(".assistant") == 1)
    assert [line for line in page.console() if "Failed to load resource" not in line] == []


def copied_without_clipboard(without: Callable[[str], Page], *, is_allowed: bool) -> Page:
    page = without("clipboard")
    page.script(f"window.allows = {str(is_allowed).lower()}")
    page.ask("Hello")
    page.click(".copy-code")
    return page


def test_text_is_copied_by_selection(without: Callable[[str], Page]) -> None:
    page = copied_without_clipboard(without, is_allowed=True)
    page.shows("Copied", "#announcements")
    assert page.script("return window.copied") == "print('hello')"
    assert page.script("return document.querySelector('textarea.offscreen')") is None


def test_text_that_cannot_be_copied_is_no_success(without: Callable[[str], Page]) -> None:
    page = copied_without_clipboard(without, is_allowed=False)
    page.shows("The browser did not allow copying", "#announcements")
    assert page.count(".is-refused") == 1
    assert page.count(".is-copied") == 0
    page.until(lambda: page.count(".is-refused") == 0)
