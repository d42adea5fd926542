"""Modules of the page that need no server, run in the browser."""

import pytest
from selenium import webdriver

from browser.chromium import Page
from browser.conftest import unused_page
from browser.page_server import PageServer


@pytest.fixture(scope="module")
def page(browser: webdriver.Chrome, server: PageServer) -> Page:
    """One page for all: nothing here changes it."""
    page = unused_page(browser, server.url)
    page.open()
    return page


IMPORT = """
const root = document.querySelector('script[type=module]').src.replace(/main\\.js$/, '');
const load = (name) => import(root + name);
"""

SAMPLES = [
    "# One\n\nText *with* `code`.\n\n### Two\n\n- a\n- b\n  - c\n\n1. x\n2. y\n\n> quote\n> more\n\nEnd.",
    "Before\n\n```python\ndef f():\n    return '''a\n\n\nb'''\n```\n\nAfter\n\n~~~\nopen fence\n\n# not a heading",
    "| a | b |\n|---|:-:|\n| 1 | **2** |\n| 3 | |\n\ntext\n\n| no table",
    "Setext\n===\n\nline\ntwo\n---\n\n***\n\n    indented\n    code\n\nend",
    "A [link] and [another][x].\n\n[link]: https://example.org/a\n\nMore [link].\n\n[x]: https://example.org/x",
    "<div>\nraw *html*\n</div>\n\n<br>\n\nText<br>text",
    "Line one  \nline two\r\nline three\r\n\r\nParagraph\r\n\r\n- item\r\n- item\r\n",
    "* a\n\n  para in item\n\n      code in item\n\n* b\n\nafter",
]


@pytest.mark.parametrize("text", SAMPLES, ids=range(len(SAMPLES)))
def test_markdown_that_grows_is_the_markdown_of_the_whole(page: Page, text: str) -> None:
    different = page.script_async(
        IMPORT
        + """
        const [text] = given;
        const { GrowingMarkdown } = await load('text/growing_markdown.js');
        // The elements that hold the blocks depend on what arrived together: they are no content.
        const holders = /<div class="(?:block|group)(?: is-full)?">|<span>|<\\/span>|<\\/div>/g;
        const flat = (view) => view.element.innerHTML.replaceAll(holders, '');
        const whole = new GrowingMarkdown();
        whole.update(text, {isFinal: true});
        const different = [];
        for (const step of [1, 2, 3, 7]) {
          const view = new GrowingMarkdown();
          for (let end = 0; end < text.length; end += step) view.update(text.slice(0, end));
          view.update(text, {isFinal: true});
          if (flat(view) !== flat(whole)) different.push([step, view.element.innerHTML, whole.element.innerHTML]);
        }
        return different;
        """,
        text,
    )
    assert different == []


def test_headings_stay_below_their_message_in_order(page: Page) -> None:
    tags = page.script_async(
        IMPORT
        + """
        const { GrowingMarkdown } = await load('text/growing_markdown.js');
        const view = new GrowingMarkdown();
        view.update('### a\\n\\n# b\\n\\n#### c\\n\\n###### d\\n\\n## e\\n\\n> # f', {isFinal: true});
        return [...view.element.querySelectorAll('h1, h2, h3, h4, h5, h6')].map((e) => e.tagName + ' ' + e.textContent);
        """
    )
    assert tags == ["H3 a", "H3 b", "H4 c", "H5 d", "H4 e"]


@pytest.mark.parametrize("size", range(1, 9))
def test_events_are_the_same_at_every_cut(page: Page, size: int) -> None:
    first = ': comment\n\nid: 1\ndata: {"a":1}\n\ndata: one\ndata: two\nid: 2\n\r\n\n'
    text = first + "event: x\r\nid: 3\r\ndata:three\r\n\r\ndata: unfinished\n"
    found = page.script_async(
        IMPORT
        + """
        const [text, size] = given;
        const { EventReader } = await load('stream/sse.js');
        const reader = new EventReader();
        const events = [];
        for (let at = 0; at < text.length; at += size) events.push(...reader.feed(text.slice(at, at + size)));
        return events.map(({id, data}) => [id, data]);
        """,
        text,
        size,
    )
    assert found == [["1", '{"a":1}'], ["2", "one\ntwo"], ["3", "three"]]


def test_a_restart_drops_the_parts_of_its_step(page: Page) -> None:
    found = page.script_async(
        IMPORT
        + """
        const { AnswerParts } = await load('stream/answer_parts.js');
        const answer = new AnswerParts();
        answer.add([
          {type: 'start'}, {type: 'start-step'}, {type: 'text-start', id: '1'},
          {type: 'text-delta', id: '1', delta: 'Kept.'},
          {type: 'text-end', id: '1'}, {type: 'finish-step'}, {type: 'start-step'},
          {type: 'reasoning-start', id: 'r'}, {type: 'reasoning-delta', id: 'r', delta: 'x'},
          {type: 'text-start', id: '2'}, {type: 'text-delta', id: '2', delta: 'Lost.'}, {type: 'reset-step'},
          {type: 'text-start', id: '2'}, {type: 'text-delta', id: '2', delta: 'Again.'},
          {type: 'unknown-type', data: 1},
          {type: 'finish', messageMetadata: {cost: 1}},
        ]);
        return {parts: answer.parts, cost: answer.metadata.cost};
        """
    )
    assert found == {"parts": [{"type": "text", "text": "Kept."}, {"type": "text", "text": "Again."}], "cost": 1}


def test_the_tree_of_a_conversation(page: Page) -> None:
    found = page.script_async(
        IMPORT
        + """
        const { ConversationTree } = await load('chat/tree.js');
        const m = (id, parent, role, created) => ({id, parent, role, created});
        const tree = new ConversationTree([
          m('u1', null, 'user', 1), m('a1', 'u1', 'assistant', 2), m('b1', 'u1', 'assistant', 2),  // side by side
          m('c1', 'u1', 'assistant', 3),  // regenerated
          m('u2', 'b1', 'user', 4), m('a2', 'u2', 'assistant', 5), m('u1b', null, 'user', 6),
        ]);
        const row = (t) => [t.members.map((x) => x.id).join('+'), t.chosen.id, t.position, t.variants.length];
        const shown = (head) => tree.turns(head).map(row);
        const leaves = {leaf: tree.leafOf(null), branch: tree.leafOf('u1'), second: tree.leafOf('b1')};
        return {...leaves, turns: shown('a2'), other: shown('c1'), none: shown(null)};
        """
    )
    assert found == {
        "leaf": "u1b",
        "branch": "c1",
        "second": "a2",
        "turns": [["u1", "u1", 0, 2], ["a1+b1", "b1", 0, 2], ["u2", "u2", 0, 1], ["a2", "a2", 0, 1]],
        "other": [["u1", "u1", 0, 2], ["c1", "c1", 1, 2]],
        "none": [],
    }


@pytest.mark.parametrize(
    ("call", "text"),
    [
        ("dollars(0)", "$0"),
        ("dollars(0.00012345)", "$0.00012"),
        ("dollars(0.0123)", "$0.012"),
        ("dollars(12.3)", "$12.30"),
        ("seconds(0.0123)", "12 ms"),
        ("seconds(1.5)", "1.50 s"),
        ("seconds(75)", "1 min 15 s"),
        ("price(2.5)", "$2.5"),
        ("price(null)", "?"),
        ("bytes(1500)", "2 kB"),
        ("shortCount(128000)", "128K"),
        ("sentence('the server failed')", "The server failed."),
        ("sentence('Done.')", "Done."),
    ],
)
def test_numbers_as_texts(page: Page, call: str, text: str) -> None:
    code = (
        "const m = await load('numbers.js'); const {dollars, seconds, price, bytes, shortCount, sentence} = m; return "
    )
    assert page.script_async(IMPORT + code + call) == text


OPEN = [
    ("**each", "**each**"),
    ("**each*", "**each**"),
    ("sends **", "sends"),
    ("sends **each** and **more", "sends **each** and **more**"),
    ("a `code", "a `code`"),
    ("a `", "a"),
    ("a `**` b", "a `**` b"),
    ("a `**` and **b", "a `**` and **b**"),
    ("2**3 is 8", "2**3 is 8"),
    ("not ** bold", "not ** bold"),
    ("done **all**.", "done **all**."),
    ("plain", "plain"),
    ("(**inner", "(**inner**"),
]


@pytest.mark.parametrize(("raw", "shown"), OPEN)
def test_the_marks_of_bold_text_and_code_do_not_flash_up(page: Page, raw: str, shown: str) -> None:
    script = (
        IMPORT
        + "const {withEnds} = await load('text/open_marks.js');"
        + "return withEnds({type: arguments[0], raw: arguments[1]});"
    )
    assert page.script_async(script, "paragraph", raw) == shown
    assert page.script_async(script, "code", raw) == raw


def test_bold_text_is_bold_before_its_end_arrives(page: Page) -> None:
    seen = page.script_async(
        IMPORT
        + """
        const {GrowingMarkdown} = await load('text/growing_markdown.js');
        const seen = [], growing = new GrowingMarkdown(), text = 'It is **very big** and `x = 1` too.';
        for (let end = 1; end <= text.length; end += 1) {
          growing.update(text.slice(0, end));
          seen.push(growing.element.textContent);
        }
        growing.update(text, {isFinal: true});
        return [seen, growing.element.innerHTML];
        """
    )
    assert not any("*" in text or "`" in text for text in seen[0])
    assert "<strong>very big</strong> and <code>x = 1</code> too." in seen[1]
