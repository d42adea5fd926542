"""Conversations: found, renamed, exported, deleted; messages edited, answered again, and side by side."""

from urllib.request import urlopen

from selenium.webdriver.common.keys import Keys

from browser.chromium import Page
from browser.page_server import PageServer
from lm_deluge.simulator import Script


def titles(page: Page) -> list[str]:
    return page.texts(".conversations a")


def menu(page: Page, title: str, item: str) -> None:
    page.script(
        "[...document.querySelectorAll('.conversations li')].find((e) => e.innerText.trim() === arguments[0])"
        ".querySelector('button').click()",
        title,
    )
    next(each for each in page.all(".menu > *") if each.text == item).click()


def test_conversations_are_listed_searched_and_opened(page: Page, server: PageServer) -> None:
    server.answers["About whales"] = "Whales are mammals of the zzyzx kind."
    page.ask("About whales")
    page.click("#new-conversation")
    assert page.text("h1") == "New conversation"
    assert page.all(".message") == []
    page.ask("About ships")
    page.until(lambda: titles(page)[:2] == ["About ships", "About whales"])
    page.press(Keys.CONTROL, "k")
    assert page.focused == "search"
    page.press("zzyzx")
    page.until(lambda: titles(page) == ["About whales"])
    page.press(Keys.ARROW_DOWN)
    page.press(Keys.ENTER)
    page.shows("Whales are mammals", ".assistant")
    page.one("#search").send_keys("qqq")
    page.shows("No conversation has these words.", ".conversations")


def test_a_conversation_is_renamed(page: Page) -> None:
    page.ask("Old name")
    page.until(lambda: "Old name" in titles(page))
    menu(page, "Old name", "Rename")
    field = page.one("#asked-text")
    assert field.get_attribute("value") == "Old name"
    field.send_keys("New name", Keys.ENTER)
    page.until(lambda: titles(page)[0] == "New name")
    assert page.text("h1") == "New name"


def test_a_conversation_is_exported(page: Page, server: PageServer) -> None:
    page.ask("Export me")
    page.until(lambda: "Export me" in titles(page))
    page.hover(".conversations li")
    page.click(".conversations li .icon-button")
    links = {each.text: each.get_attribute("href") for each in page.all(".menu a")}
    page.press(Keys.ESCAPE)
    assert page.focused == "Actions for Export me"
    assert set(links) == {"Export as Markdown", "Export as JSON"}
    with urlopen(links["Export as Markdown"]) as response:  # noqa: S310
        assert "**each token**" in response.read().decode()


def test_a_conversation_is_deleted_after_a_question(page: Page) -> None:
    page.ask("Delete me")
    page.until(lambda: "Delete me" in titles(page))
    menu(page, "Delete me", "Delete")
    page.press(Keys.ENTER)  # Cancel has the focus
    page.until(lambda: not page.all("dialog"))
    assert "Delete me" in titles(page)
    menu(page, "Delete me", "Delete")
    page.click("dialog .danger")
    page.until(lambda: "Delete me" not in titles(page))
    assert page.text("h1") == "New conversation"
    assert page.all(".message") == []


def test_a_message_is_edited_and_both_versions_are_kept(page: Page, server: PageServer) -> None:
    server.answers.update({"First": "Answer one.", "Second": "Answer two.", "Follow": "Answer three."})
    page.ask("First")
    page.ask("Follow")
    page.all(".user [data-action=edit]")[0].click()
    editor = page.one(".editor textarea")
    assert editor.get_attribute("value") == "First"
    editor.clear()
    editor.send_keys("Second", Keys.ENTER)
    page.shows("Answer two.")
    page.settled()
    assert page.texts(".message .parts") == ["Second", "Answer two."]
    assert page.texts(".branches span") == ["2 / 2"]
    page.click("[data-action=previous]")
    page.until(lambda: page.texts(".message .parts") == ["First", "Answer one.", "Follow", "Answer three."])
    assert page.texts(".branches span") == ["1 / 2"]
    assert page.focused != "BODY"
    page.driver.refresh()
    page.until(lambda: page.texts(".message .parts") == ["First", "Answer one.", "Follow", "Answer three."])


def test_the_last_message_is_edited_with_the_arrow_key(page: Page) -> None:
    page.ask("Hello")
    page.press(Keys.ARROW_UP)
    editor = page.one(".editor textarea")
    assert editor.get_attribute("value") == "Hello"
    editor.send_keys(Keys.ESCAPE)
    page.until(lambda: not page.all(".editor"))
    assert page.focused == "Edit and continue from here"


def test_an_answer_is_regenerated_with_the_selected_model(page: Page) -> None:
    page.ask("Hello")
    page.choose("claude-opus-4-8")
    page.click("[data-action=regenerate]")
    page.until(lambda: page.texts(".assistant .branches span") == ["2 / 2"])
    page.settled()
    assert page.text(".assistant h2") == "claude-opus-4-8"
    page.click("[data-action=previous]")
    page.until(lambda: page.text(".assistant h2") == "gpt-5.4")
    assert page.focused in ("Next version", "Previous version", "message", "transcript")


def test_two_models_side_by_side(page: Page, server: PageServer) -> None:
    server.answers["Compare"] = Script(text="Both answer this.")
    page.choose("gpt-5.4", "claude-opus-4-8")
    page.send("Compare")
    page.settled(2)
    assert page.texts(".pair h2") == ["gpt-5.4", "claude-opus-4-8"]
    assert page.texts(".pair .parts") == ["Both answer this."] * 2
    left, right = page.all(".pair .message")
    assert left.location["y"] == right.location["y"]
    assert left.location["x"] < right.location["x"]
    second = page.all(".choose")[1]
    assert second.get_attribute("aria-pressed") == "false"
    second.click()
    page.until(lambda: [e.get_attribute("aria-pressed") for e in page.all(".choose")] == ["false", "true"])
    page.click(".compare")
    page.ask("And then?")
    page.driver.refresh()
    page.until(lambda: len(page.all(".message")) == 5)
    assert [e.get_attribute("aria-pressed") for e in page.all(".choose")] == ["false", "true"]
    request = server.simulator.requests[-1].json
    assert [message["content"] for message in request["messages"] if message["role"] == "assistant"] == [
        "Both answer this."
    ]
    page.all(".choose")[0].click()
    page.until(lambda: len(page.all(".message")) == 3)


def test_a_draft_stays_with_its_conversation(page: Page) -> None:
    page.ask("Hello")
    page.press("unfinished")
    page.click("#new-conversation")
    assert page.one("#message").get_attribute("value") == ""
    page.driver.back()
    page.until(lambda: page.one("#message").get_attribute("value") == "unfinished")
    page.driver.refresh()
    page.until(lambda: page.focused == "message")
    assert page.one("#message").get_attribute("value") == "unfinished"


def test_settings_reach_the_provider(page: Page, server: PageServer) -> None:
    page.press(Keys.CONTROL, ",")
    page.one("#system-prompt").send_keys("Be brief.")
    page.one("#setting-temperature").send_keys("0.3")
    page.one("#setting-max_new_tokens").send_keys("50")
    page.click("#setting-tools")
    page.press(Keys.ESCAPE)
    page.choose("cut")
    page.ask("Hello")
    request = server.simulator.requests[-1].json
    assert request["messages"][0]["content"] == "Be brief."
    assert request["temperature"] == 0.3
    assert 50 in (request.get("max_tokens"), request.get("max_completion_tokens"))
    page.driver.refresh()
    page.until(lambda: page.all(".message"))
    page.click("#open-settings")
    assert page.one("#system-prompt").get_attribute("value") == "Be brief."
    assert page.one("#setting-temperature").get_attribute("value") == "0.3"
    assert not page.one("#setting-tools").is_selected()
    stored = server.fetch(f"/conversations/{page.script('return location.hash').removeprefix('#/c/')}")["settings"]
    assert stored == {"models": ["cut"], "temperature": 0.3, "max_new_tokens": 50, "tools": False}


def test_the_model_picker_searches_and_is_used_by_keyboard(page: Page) -> None:
    page.press(Keys.CONTROL, ".")
    assert page.focused == "Search models"
    page.until(lambda: page.text(".picker .is-active strong") == "gpt-5.4")
    assert "$2.5 / $15" in page.text(".picker .is-active")
    assert "reasoning" in page.text(".picker .is-active")
    page.press(Keys.ARROW_DOWN)
    page.until(lambda: page.text(".picker .is-active strong") == "proxied/claude")
    active = page.one(".picker-search").get_attribute("aria-activedescendant")
    assert page.text(f"#{active} strong") == "proxied/claude"
    page.press("claude")
    page.until(lambda: page.texts(".picker li:not([hidden]) strong") == ["claude-opus-4-8", "proxied/claude"])
    page.script("document.querySelector('.picker-search').value = ''")
    page.press("pausing-l")
    page.until(lambda: page.texts(".picker li:not([hidden]) strong") == ["pausing-later"])
    page.press(Keys.ENTER)
    page.until(lambda: not page.all("dialog"))
    assert page.texts(".model-button") == ["pausing-later"]
    page.driver.refresh()
    page.until(lambda: page.texts(".model-button") == ["pausing-later"])  # remembered
    page.press(Keys.CONTROL, ".")
    page.press("no such model")
    page.shows("No model has these words.", "dialog")
