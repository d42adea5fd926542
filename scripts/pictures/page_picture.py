"""The chat page of `deluge web` in headless Chromium, with an answer of the simulator."""

from __future__ import annotations

import base64
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

__all__ = ["BROWSER", "DRIVER", "page_pictures"]

BROWSER, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")

_PATIENCE_S = 60.0  # long enough for a slow machine, and the script ends if the page does not react
_SIZE = {"width": 1200, "height": 800, "deviceScaleFactor": 1, "mobile": False}
_QUALITY = 80  # of WebP: text stays sharp, and a picture has 50 kB
_QUESTIONS = ("How do I take a stream in Python?", "And what happens when a stream breaks?")


def page_pictures(folder: Path, environment: dict[str, str]) -> dict[str, bytes]:
    """Return the pictures of the page by name: light and dark.

    Args:
        folder: A folder for the profile of the browser and the database of the page.
        environment: Of `deluge web`, without keys.
    """
    with _served(folder, environment) as url, _browser(folder) as driver:
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", _SIZE)
        _prefer(driver, "light")
        driver.get(url)
        for number, question in enumerate(_QUESTIONS, start=1):
            _wait(lambda: driver.find_element(By.ID, "message").is_displayed())
            driver.find_element(By.ID, "message").send_keys(question, Keys.ENTER)
            _wait(lambda: _is_answered(driver, number))  # noqa: B023 - it is called before the next turn
        if "Simulated" not in driver.find_element(By.TAG_NAME, "body").text:
            raise RuntimeError("the page does not show that the answers are simulated")
        pictures = {}
        for theme in ("light", "dark"):
            _prefer(driver, theme)
            shot = driver.execute_cdp_cmd("Page.captureScreenshot", {"format": "webp", "quality": _QUALITY})
            pictures[f"page-{theme}.webp"] = base64.b64decode(shot["data"])
        return pictures


@contextmanager
def _served(folder: Path, environment: dict[str, str]) -> Iterator[str]:
    """Run `deluge web` and yield the URL of the page."""
    command = [sys.executable, "-m", "lm_deluge", "web", "--no-open", "--port", "0"]
    with (folder / "web.log").open("w+b") as log:
        process = subprocess.Popen(command, cwd=folder, env=environment, stderr=log)
        try:
            yield _wait(lambda: re.search(r"http://127\.0\.0\.1:\d+/", (folder / "web.log").read_text("utf-8")))[0]
        finally:
            process.terminate()
            process.wait()


@contextmanager
def _browser(folder: Path) -> Iterator[webdriver.Chrome]:
    options = Options()
    options.binary_location = str(BROWSER)
    with tempfile.TemporaryDirectory(dir=folder, ignore_cleanup_errors=True) as profile:
        flags = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars")
        for flag in (*flags, f"--user-data-dir={profile}"):
            options.add_argument(flag)
        driver = webdriver.Chrome(options=options, service=Service(str(DRIVER)))
        try:
            yield driver
        finally:
            driver.quit()


def _prefer(driver: webdriver.Chrome, theme: str) -> None:
    features = [
        {"name": "prefers-color-scheme", "value": theme},
        {"name": "prefers-reduced-motion", "value": "reduce"},
    ]
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})


def _is_answered(driver: webdriver.Chrome, count: int) -> bool:
    answers = driver.find_elements(By.CSS_SELECTOR, ".message.assistant")
    running = driver.find_elements(By.CSS_SELECTOR, ".is-running, #stop:not([hidden])")
    return len(answers) >= count and not running


def _wait(condition: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        try:
            found = condition()
        except Exception:  # noqa: BLE001 - an element that is not there yet, or was replaced
            found = None
        if found:
            return found
        if time.monotonic() > deadline:
            raise TimeoutError("the page did not react")
        time.sleep(0.05)
