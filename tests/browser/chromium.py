"""Headless Chromium with selenium, and what the tests do with the page."""

import base64
import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement

BROWSER, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
IS_INSTALLED = BROWSER is not None and DRIVER is not None
HOW = "apt-get install --no-install-recommends chromium chromium-driver"

_PATIENCE_S = 20.0  # a slow machine that runs other tests beside
_POLL_S = 0.02

_FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-dev-shm-usage",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
    "--js-flags=--expose-gc",
    "--enable-precise-memory-info",
)


def start_chromium(folder: Path) -> webdriver.Chrome:
    """Start a browser with an empty profile."""
    options = Options()
    options.binary_location = str(BROWSER)
    for flag in (*_FLAGS, f"--user-data-dir={folder}", "--window-size=1440,900"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(str(DRIVER)))
    driver.set_script_timeout(30)
    return driver


class Page:
    """The page in the browser, with words for what a user does and sees."""

    def __init__(self, driver: webdriver.Chrome, url: str) -> None:
        self.driver = driver
        self.url = url
        self.violates = False  # a test that violates the policy on purpose sets it

    # What the browser shows.

    def size(self, width: int, height: int = 800) -> None:
        """Set the size of the visible page."""
        fields = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", fields)

    def prefer(self, **features: str) -> None:
        """Set media features: `color_scheme="dark"`, `reduced_motion="reduce"`."""
        found = [{"name": f"prefers-{name.replace('_', '-')}", "value": value} for name, value in features.items()]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": found})

    def shot(self, path: Path) -> None:
        """Write a picture of the visible page."""
        found = self.driver.execute_cdp_cmd("Page.captureScreenshot", {"format": "png"})
        path.write_bytes(base64.b64decode(found["data"]))

    def script(self, code: str, *arguments: Any) -> Any:
        """Run a script; `return` gives its value. The policy of the page does not apply to it."""
        return self.driver.execute_script(code, *arguments)

    def script_async(self, code: str, *arguments: Any) -> Any:
        """Run the body of an async function and return its value."""
        call = "const done = arguments[arguments.length - 1]; const given = [...arguments].slice(0, -1);"
        body = f"{call} (async (...given) => {{ {code} }})(...given).then(done, (e) => done({{failed: String(e)}}))"
        found = self.driver.execute_async_script(body, *arguments)
        assert not (isinstance(found, dict) and "failed" in found), found
        return found

    def open(self, path: str = "/") -> None:
        """Open the page and wait until it is ready."""
        self.driver.get(self.url + path)
        self.until(lambda: self.count("#app:not([hidden]), .sign-in:not([hidden])"))

    def until(self, condition: Callable[[], Any], what: str = "") -> Any:
        """Wait for a condition, and return its value."""
        deadline = time.monotonic() + _PATIENCE_S
        while True:
            try:
                found = condition()
            except StaleElementReferenceException:
                found = None
            if found:
                return found
            if time.monotonic() > deadline:
                raise AssertionError(f"{what or 'the condition'} did not come true; the page shows: {self.text()!r}")
            time.sleep(_POLL_S)

    def all(self, selector: str) -> list[WebElement]:
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def one(self, selector: str) -> WebElement:
        """Wait for a visible element."""
        return self.until(lambda: next((e for e in self.all(selector) if e.is_displayed()), None), selector)

    def text(self, selector: str = "body") -> str:
        """Return the visible text of the first element."""
        return self.script("return document.querySelector(arguments[0])?.innerText ?? ''", selector)

    def count(self, selector: str) -> int:
        """Return the number of elements. Elements that `all` returns are kept alive by the driver."""
        return self.script("return document.querySelectorAll(arguments[0]).length", selector)

    def texts(self, selector: str) -> list[str]:
        return self.script("return [...document.querySelectorAll(arguments[0])].map((e) => e.innerText)", selector)

    def shows(self, text: str, selector: str = "body") -> None:
        """Wait for a text."""
        self.until(lambda: text in self.text(selector), f"the text {text!r}")

    @property
    def focused(self) -> str:
        """The id, or the label, of the element that has the focus."""
        return self.script(
            "const e = document.activeElement; return e.id || e.getAttribute('aria-label') || e.className || e.tagName"
        )

    # What a user does.

    def press(self, *keys: str) -> None:
        """Press keys, the last one while the others are held."""
        chain = webdriver.ActionChains(self.driver, duration=0)
        for key in keys[:-1]:
            chain.key_down(key)
        chain.send_keys(keys[-1])
        for key in reversed(keys[:-1]):
            chain.key_up(key)
        chain.perform()

    def click(self, selector: str) -> None:
        self.one(selector).click()

    def hover(self, selector: str) -> None:
        webdriver.ActionChains(self.driver, duration=0).move_to_element(self.one(selector)).perform()

    def send(self, text: str) -> None:
        """Write a message and send it."""
        field = self.one("#message")
        field.click()
        field.send_keys(text, Keys.ENTER)

    def choose(self, *models: str) -> None:
        """Choose one model, or two side by side."""
        for position, model in enumerate(models):
            buttons = self.all(".model-button")
            (buttons[position] if position < len(buttons) else self.one(".compare")).click()
            field = self.one(".picker-search")
            field.send_keys(model)
            field.send_keys(Keys.ENTER)
            self.until(lambda: not self.all("dialog"))

    def settled(self, answers: int = 1) -> None:
        """Wait until so many answers are shown and none is running."""
        self.until(
            lambda: self.count(".message.assistant") >= answers and self.count(".is-running, #stop:not([hidden])") == 0,
            "the end of the answer",
        )

    def ask(self, text: str) -> str:
        """Send a message, wait for the end of the answer, and return its visible text."""
        before = self.count(".message.assistant")
        self.send(text)
        self.settled(before + 1)
        return self.texts(".message.assistant .parts")[-1]

    # What the browser has done.

    def console(self) -> list[str]:
        """Return what the browser has logged since the last call, beyond what a page cannot avoid."""
        return [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] != "INFO"]

    def requests(self) -> list[str]:
        """Return the URLs that were requested since the last call."""
        events = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        return [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]
