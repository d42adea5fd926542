"""The page at 360 pixels, in the dark, by keyboard, and for assistive technology, in each of its states."""

from collections.abc import Callable

import pytest
from selenium.webdriver.common.keys import Keys

from browser.chromium import Page
from browser.page_server import PageServer
from lm_deluge.events import Citation
from lm_deluge.simulator import Script

RICH = """# Title

Text with **bold**, *italic*, `code`, ~~old~~ and [a link](https://example.org/a/long/address/that/does/not/fit?in=a&line=1).

### Skipped a level

1. One
   - nested
2. Two

> A quotation.

```python
def a_function_with_a_long_line(first_argument: str, second_argument: str, third_argument: str) -> dict[str, str]:
    return {"key": first_argument, "number": 12.5}  # comment
```

| | wide column of a table | another wide column | and a third one of them |
|---|---|---:|:---:|
| row | 1 | 2 | averyveryveryveryverylongwordthatdoesnotbreakanywhere |

- [x] done
- [ ] open

## Back

---

Averyveryveryveryveryveryveryveryveryveryveryveryveryveryveryverylongwordthatmustbreak.
"""


def empty(page: Page) -> None:
    page.open()


def answered(page: Page) -> None:
    page.ask("Rich")
    page.script("for (const e of document.querySelectorAll('details')) e.open = true")
    page.until(lambda: page.text(".reasoning .markdown"))


def picking(page: Page) -> None:
    page.press(Keys.CONTROL, ".")
    page.one("dialog")


def settings(page: Page) -> None:
    page.press(Keys.CONTROL, ",")
    page.one("dialog")


def shortcuts(page: Page) -> None:
    page.press(Keys.CONTROL, "/")
    page.one("dialog")


def running(page: Page) -> None:
    page.choose("holding")
    page.send("Hello")
    page.shows("Streaming sends", ".assistant .parts")


def failed(page: Page) -> None:
    page.choose("cut")
    page.ask("Hello")


def side_by_side(page: Page) -> None:
    page.choose("gpt-5.4", "claude-opus-4-8")
    page.send("Rich")
    page.settled(2)


def edited(page: Page) -> None:
    page.ask("Hello")
    page.press(Keys.ARROW_UP)
    page.one(".editor")


def listed(page: Page) -> None:
    page.ask("Hello")
    if page.all("#toggle-sidebar")[0].is_displayed():
        page.click("#toggle-sidebar")
    page.hover(".conversations li")
    page.click(".conversations li .icon-button")
    page.one(".menu")


STATES = (empty, answered, picking, settings, shortcuts, running, failed, side_by_side, edited, listed)


@pytest.fixture(autouse=True)
def scripts(request: pytest.FixtureRequest) -> None:
    server = request.getfixturevalue("server")
    source = Citation(url="https://example.org/", title="A source")
    calls = [("get_weather", {"city": "Paris"})]
    server.answers["Rich"] = Script(reasoning="A **thought**.", text=RICH, tool_calls=calls, extra=[source])


@pytest.mark.parametrize(("width", "scheme"), [(1440, "light"), (360, "dark")])
@pytest.mark.parametrize("state", STATES, ids=lambda state: state.__name__)
def test_every_state(
    page: Page, axe: Callable[[Page, str], None], state: Callable[[Page], None], width: int, scheme: str
) -> None:
    page.size(width)
    page.prefer(color_scheme=scheme, reduced_motion="reduce")
    state(page)
    axe(page, state.__name__)
    assert page.script("return document.documentElement.scrollWidth") <= width
    outside = page.script(
        "return [...document.querySelectorAll('button, input, textarea, select, a[href]')].filter((e) => {"
        "  const {left, right, width} = e.getBoundingClientRect();"
        "  const shown = e.checkVisibility({visibilityProperty: true, opacityProperty: false});"
        "  return shown && width && (left < -1 || right > innerWidth + 1) && !e.closest('.code, .table, .skip');"
        "}).map((e) => e.outerHTML.slice(0, 100))"
    )
    assert outside == []
    if page.all("#stop:not([hidden])"):
        page.press(Keys.ESCAPE)
        page.settled()


def luminance(page: Page) -> float:
    color = page.script("return getComputedStyle(document.documentElement).backgroundColor")
    return sum(int(part) for part in color.removeprefix("rgb(").removesuffix(")").split(",")) / (3 * 255)


def test_dark_and_light_follow_the_system_and_the_switch(page: Page) -> None:
    assert luminance(page) > 0.9
    page.prefer(color_scheme="dark")
    page.until(lambda: luminance(page) < 0.2)
    page.click("#switch-theme")
    assert luminance(page) > 0.9
    page.driver.refresh()
    page.until(lambda: page.focused == "message")
    assert luminance(page) > 0.9
    page.click("#switch-theme")
    page.prefer(color_scheme="light")
    assert luminance(page) < 0.2
    page.click("#switch-theme")
    assert luminance(page) > 0.9
    assert "as the system" in page.text("#announcements")


def test_by_keyboard_alone(page: Page) -> None:
    page.press("Hello")
    page.press(Keys.ENTER)
    page.settled()
    assert page.focused == "message"
    page.press(Keys.ALT, Keys.ARROW_UP)
    assert page.script("return document.activeElement.classList.contains('assistant')")
    page.press(Keys.ALT, Keys.ARROW_UP)
    assert page.script("return document.activeElement.classList.contains('user')")
    page.press(Keys.TAB)
    page.press(Keys.TAB)
    assert page.focused == "Edit and continue from here"
    page.press(Keys.ENTER)
    page.until(lambda: page.focused == "Edit the message")
    page.press("!")
    page.press(Keys.ENTER)
    page.until(lambda: page.texts(".user .branches span") == ["2 / 2"])
    page.settled()
    assert page.focused == "message"
    page.press(Keys.CONTROL, Keys.SHIFT, "o")
    page.until(lambda: page.text("h1") == "New conversation")
    assert page.focused == "message"
    page.press(Keys.CONTROL, "/")
    page.one("dialog")
    page.press(Keys.ESCAPE)
    page.until(lambda: not page.all("dialog"))
    assert page.focused == "message"


def test_every_control_is_reached_and_shows_its_focus(page: Page) -> None:
    page.ask("Rich")
    page.script("document.activeElement.blur(); document.getElementById('transcript').scrollTop = 0")
    reached = set()
    for _ in range(60):
        page.press(Keys.TAB)
        name, outline = page.script(
            "const e = document.activeElement; const style = getComputedStyle(e);"
            "return [e.id || e.dataset.action || e.className || e.tagName,"
            " style.outlineStyle !== 'none' || e.id === 'message' || e.id === 'skip']"
        )
        assert outline or name == "BODY", name
        reached.add(name.split()[0])
    wanted = {"skip", "new-conversation", "search", "switch-theme", "open-shortcuts", "model-button", "compare"}
    assert reached >= wanted | {"open-settings", "transcript", "copy", "edit", "regenerate", "copy-code", "table"}
    assert reached >= {"message", "attach", "send"}


def test_the_list_covers_a_narrow_page_and_gives_the_focus_back(page: Page) -> None:
    page.size(360)
    assert not page.all("#search")[0].is_displayed()
    page.click("#toggle-sidebar")
    page.until(lambda: page.focused == "close-sidebar")
    assert page.script("return document.getElementById('main').inert")
    page.press(Keys.ESCAPE)
    page.until(lambda: page.focused == "toggle-sidebar")
    assert not page.script("return document.getElementById('main').inert")


def test_the_page_notes_a_simulated_model(server: PageServer, simulated: Page) -> None:
    assert "Simulated." in simulated.text("#simulated-note")
    assert "not a model" in simulated.text("#simulated-note")
    simulated.send("Hello")
    simulated.until(lambda: simulated.texts(".assistant .badge") == ["simulated, not a model"])
    simulated.press(Keys.ESCAPE)
    simulated.settled()
