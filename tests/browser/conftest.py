"""One browser for all tests, one server for each module. Each test fails if the page violated its policy."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from selenium import webdriver

from browser.chromium import HOW, IS_INSTALLED, Page, start_chromium
from browser.page_server import PageServer, page_server
from installed import need


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    need("chromium", found=IS_INSTALLED, how=HOW)
    driver = start_chromium(tmp_path_factory.mktemp("profile"))
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, browser: webdriver.Chrome) -> Iterator[PageServer]:
    with page_server(tmp_path_factory.mktemp("page")) as running:
        yield running


def unused_page(driver: webdriver.Chrome, url: str) -> Page:
    """Return the page as a browser shows it that was never there."""
    page = Page(driver, url)
    page.size(1280)
    page.prefer(color_scheme="light", reduced_motion="reduce")
    driver.execute_cdp_cmd("Storage.clearDataForOrigin", {"origin": url, "storageTypes": "all"})
    page.console()
    page.requests()
    return page


@pytest.fixture
def page(browser: webdriver.Chrome, server: PageServer) -> Iterator[Page]:
    """The page, open. Afterwards: no script failed, nothing violated the policy, nothing was loaded from elsewhere."""
    page = unused_page(browser, server.url)
    before = len(server.reports())
    page.open()
    yield page
    # The page of the test before may still have asked its own server.
    assert [url for url in page.requests() if not url.startswith(("http://127.0.0.1:", "data:", "chrome"))] == []
    logged = [line for line in page.console() if "Failed to load resource" not in line]
    reports = server.reports()[before:]
    assert (bool(logged), bool(reports)) == (page.violates, page.violates), [*logged, *reports]


AXE = Path(__file__).parent / "vendor" / "axe.js"


@pytest.fixture(scope="session")
def axe() -> Callable[[Page, str], None]:
    """Return a check that axe-core finds nothing wrong with what the page shows."""
    source = AXE.read_text("utf-8")

    def check(page: Page, state: str) -> None:
        if not page.script("return 'axe' in window"):
            page.script(source)
        violations = page.script_async(
            "const found = await axe.run(document, {resultTypes: ['violations']});"
            "return found.violations.map((v) => [v.id, ...v.nodes.map((n) => n.html.slice(0, 200))])"
        )
        assert violations == [], state

    return check


@pytest.fixture
def simulated(browser: webdriver.Chrome, tmp_path: Path) -> Iterator[Page]:
    """The page of a server without any key, where the simulator answers."""
    with page_server(tmp_path, models={}) as server:
        page = unused_page(browser, server.url)
        page.open()
        yield page
