"""Files of a message: dropped, pasted, and chosen."""

import base64
from pathlib import Path

from selenium.webdriver.common.keys import Keys

from browser.chromium import Page
from browser.page_server import PageServer

PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="
)

TRANSFER = """
const bytes = Uint8Array.from(atob(arguments[0]), (c) => c.charCodeAt(0));
const transfer = new DataTransfer();
transfer.items.add(new File([bytes], "pixel é.png", {type: "image/png"}));
const field = document.getElementById("message");
"""


def is_loaded(page: Page, selector: str) -> bool:
    return page.script("return document.querySelector(arguments[0])?.naturalWidth === 1", selector)


def test_a_dropped_image_is_sent(page: Page, server: PageServer) -> None:
    drag = "field.dispatchEvent(new DragEvent('dragover', {dataTransfer: transfer, bubbles: true, cancelable: true}));"
    page.script(TRANSFER + drag, base64.b64encode(PIXEL).decode())
    assert page.one(".drop-target")
    drop = "field.dispatchEvent(new DragEvent('drop', {dataTransfer: transfer, bubbles: true, cancelable: true}));"
    page.script(TRANSFER + drop, base64.b64encode(PIXEL).decode())
    assert not page.one("#app").find_elements("css selector", ".drop-target")[0].is_displayed()
    page.until(lambda: is_loaded(page, ".attachment img"))
    assert "pixel é.png" in page.text(".attachment")
    page.ask("What is this?")
    assert page.all(".attachment") == []
    page.until(lambda: is_loaded(page, ".user img"))
    sent = server.simulator.requests[-1].json
    assert base64.b64encode(PIXEL).decode() in str(sent)
    page.driver.refresh()
    page.until(lambda: is_loaded(page, ".user img"))


def test_a_pasted_image_is_attached_and_removed_by_keyboard(page: Page) -> None:
    paste = (
        "field.dispatchEvent(new ClipboardEvent('paste', {clipboardData: transfer, bubbles: true, cancelable: true}));"
    )
    page.script(TRANSFER + paste, base64.b64encode(PIXEL).decode())
    page.until(lambda: is_loaded(page, ".attachment img"))
    page.one(".attachment button").send_keys(Keys.DELETE)
    page.until(lambda: not page.all(".attachment"))
    assert page.focused == "message"


def test_a_chosen_file_is_kept_when_the_message_is_edited(page: Page, server: PageServer, tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("The word is plover.")
    page.script("document.getElementById('file-picker').hidden = false")
    page.one("#file-picker").send_keys(str(path))
    page.until(lambda: "19 B" in page.text(".attachment"))
    page.ask("Read this")
    assert page.texts(".user .file-link") == ["notes.txt"]
    page.press(Keys.ARROW_UP)
    page.press(" again")
    page.press(Keys.ENTER)
    page.until(lambda: page.texts(".user .branches span") == ["2 / 2"])
    page.settled()
    assert page.texts(".user .file-link") == ["notes.txt"]
    assert "plover" in str(server.simulator.requests[-1].json)


def test_a_file_that_is_too_large_is_named(page: Page) -> None:
    page.script(
        "const transfer = new DataTransfer(); transfer.items.add(new File([new Uint8Array(33 * 2 ** 20)], 'big.bin'));"
        "document.body.dispatchEvent(new DragEvent('drop', {dataTransfer: transfer, bubbles: true, cancelable: true}))"
    )
    page.until(lambda: "too large" in page.text(".attachment"))
    page.click(".attachment button")
    page.until(lambda: not page.all(".attachment"))
