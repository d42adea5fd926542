"""The events of one response through its filters: every kind of text, and what keeps its place in the text."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from filters.whole_text import cut
from lm_deluge.errors import ConfigurationError, FilterError
from lm_deluge.events import (
    Citation,
    Event,
    MediaDelta,
    ProviderPart,
    ReasoningDelta,
    RefusalDelta,
    ResponseFinished,
    ResponseStarted,
    TextDelta,
    TokenLogprob,
    ToolCallDelta,
    ToolCallFinished,
    ToolCallStarted,
    UsageReported,
)
from lm_deluge.filters import Guard, RaiseAt, ReasoningTags, Redact, StopAt
from lm_deluge.filters.answer_filter import AnswerFilter
from lm_deluge.filters.compiled import compile_filters
from lm_deluge.filters.rules import Filter
from lm_deluge.response import APIResponse, ResponseBuilder
from lm_deluge.usage import Usage

KEY = Redact(r"sk-[a-z0-9]{4,}", "[key]", max_length=40)
END = ResponseFinished("stop", "end_turn")


def filter_of(*filters: Filter) -> AnswerFilter:
    compiled = compile_filters(filters)
    assert compiled is not None
    return AnswerFilter(compiled)


def passed(filters: Sequence[Filter], *reads: list[Event]) -> list[Event]:
    """Return the events that pass, of reads and the end of the answer."""
    one = filter_of(*filters)
    return [event for read in [*reads, [END]] for event in one.feed(read)]


def response_of(events: list[Event]) -> APIResponse:
    builder = ResponseBuilder()
    builder.add_all(events)
    return builder.response()


def texts(*pieces: str) -> list[list[Event]]:
    return [[TextDelta(piece)] for piece in pieces]


def text_of(events: list[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, TextDelta))


# Stop, replace, raise


def test_a_stop_text_ends_the_answer_and_is_no_part_of_it() -> None:
    one = filter_of(StopAt("END", "STOP"))
    assert one.feed([ResponseStarted(), TextDelta("One ST")]) == [ResponseStarted(), TextDelta("One ")]
    assert one.is_holding
    usage = UsageReported(Usage(output_tokens=9))
    assert one.feed([TextDelta("EP EN"), TextDelta("D two"), TextDelta("three"), usage]) == [
        TextDelta("STEP "),
        usage,
        ResponseFinished("stop", "stop_at", finish_details={"stop": "END"}),
    ]
    assert (one.is_over, one.error) == (True, None)
    assert one.feed([TextDelta("four")]) == []


def test_held_text_is_released_at_the_end() -> None:
    assert passed([StopAt("END")], *texts("The EN")) == [TextDelta("The "), TextDelta("EN"), END]
    assert passed([KEY], *texts("sk-abc", "d")) == [TextDelta("[key]"), END]


def test_deltas_without_a_match_pass_as_they_are() -> None:
    event = TextDelta("nothing to see")
    assert filter_of(StopAt("END"), KEY).feed([event])[0] is event


def test_an_exclusion_raises_after_the_text_before_it() -> None:
    one = filter_of(StopAt("x"), RaiseAt("Acme"))
    assert one.feed([TextDelta("by Ac")]) == [TextDelta("by ")]
    assert one.feed([TextDelta("e, Ac"), TextDelta("me.")]) == [TextDelta("Ace, ")]
    assert isinstance(one.error, FilterError)
    assert "number 2 of the filters" in str(one.error)
    assert "Acme" not in str(one.error)
    assert one.feed([TextDelta("more")]) == []


def test_of_several_filters_the_first_match_wins_and_then_the_first_filter() -> None:
    longer, shorter = Redact("abc", "1"), Redact("ab", "2")
    assert text_of(passed([longer, shorter], *texts("abcab"))) == "12"
    assert text_of(passed([shorter, longer], *texts("abcab"))) == "2c2"
    assert text_of(passed([Redact("bcd", "1"), Redact("ab", "2")], *texts("abcd"))) == "2cd"
    assert text_of(passed([Redact("[ab]{2}", "1"), Redact("b"), Redact("a", "3")], *texts("abb"))) == "1[redacted]"


def test_a_replacement_is_not_searched() -> None:
    assert text_of(passed([Redact("a", "ab"), Redact("b", "c")], *texts("aab"))) == "ababc"


def test_case_and_literals() -> None:
    assert text_of(passed([Redact("c++", "[lang]", literal=True)], *texts("c+", "+ C++"))) == "[lang] C++"
    assert text_of(passed([Redact("c++", "[lang]", literal=True, ignore_case=True)], *texts("C+", "+"))) == "[lang]"
    assert text_of(passed([Redact(re.compile("end.", re.IGNORECASE), "")], *texts("END!x"))) == "x"


# Reasoning


def test_tags_turn_text_into_reasoning_wherever_they_are_cut() -> None:
    text = "<think>Hm, 2 < 3.</think>Three.<think>Sure?</think> Yes"
    for size in range(1, len(text) + 1):
        answer = response_of(passed([ReasoningTags()], *texts(*cut(text, range(0, len(text), size)))))
        assert (answer.thinking, answer.completion) == ("Hm, 2 < 3.Sure?", "Three. Yes")
    assert response_of(passed([ReasoningTags()], *texts("a<think>b"))).thinking == "b"
    assert response_of(passed([ReasoningTags()], *texts("a</think>b"))).completion == "a</think>b"


def test_the_other_filters_see_tagged_text_as_reasoning() -> None:
    filters = [ReasoningTags(), StopAt("END"), KEY]
    answer = response_of(passed(filters, *texts("<think>END sk-abcdef</think>One sk-abcdef END two")))
    assert (answer.thinking, answer.completion, answer.raw_finish_reason) == ("END [key]", "One [key] ", "stop_at")
    answer = response_of(passed([ReasoningTags(), StopAt("END", reasoning=True)], *texts("a<think>b END</think>c")))
    assert (answer.thinking, answer.completion) == ("b ", "a")


def test_reasoning_and_refusals_are_redacted() -> None:
    events = passed([KEY], [ReasoningDelta("sk-ab")], [ReasoningDelta("cd ")], [RefusalDelta("No: sk-abcd")])
    assert events == [ReasoningDelta("[key] "), RefusalDelta("No: "), RefusalDelta("[key]"), END]
    assert passed([Redact("a", "b", reasoning=False)], [ReasoningDelta("a")]) == [ReasoningDelta("a"), END]


def test_the_signature_of_changed_reasoning_is_dropped() -> None:
    signature = ProviderPart("anthropic", "signature", "c2ln")
    events = passed([KEY], [ReasoningDelta("sk-abcd"), signature, TextDelta("a"), ReasoningDelta("b"), signature])
    assert events == [ReasoningDelta("[key]"), TextDelta("a"), ReasoningDelta("b"), signature, END]
    details = ProviderPart("openrouter", "reasoning_details", [{"text": "sk-abcd"}])
    assert passed([KEY], [details]) == [END]


# The parts of an answer


def test_a_match_lies_within_one_part_of_the_answer() -> None:
    call = [ToolCallStarted(0, "c", "f"), ToolCallDelta(0, "{}"), ToolCallFinished(0, "c", "f", "{}", {})]
    assert passed([StopAt("END")], [TextDelta("EN"), *call], [TextDelta("D")]) == [
        *(TextDelta("EN"), *call),
        *(TextDelta("D"), END),
    ]
    events = passed([StopAt("END")], [TextDelta("EN"), UsageReported(Usage()), ReasoningDelta("")], [TextDelta("D")])
    assert events[-1] == ResponseFinished("stop", "stop_at", finish_details={"stop": "END"})


def test_a_match_that_the_end_of_a_part_completes_is_a_match() -> None:
    stop = RaiseAt(r"key\b")
    one = filter_of(stop)
    assert one.feed([TextDelta("a key")]) == [TextDelta("a ")]
    assert one.feed([ToolCallStarted(0, "c", "f")]) == []
    assert isinstance(one.error, FilterError)


def test_transcripts_are_filtered_and_audio_passes() -> None:
    audio = [MediaDelta("audio/wav", "QUJD", transcript=text) for text in ("key ", "sk-a", "bcd")]
    events = passed([KEY], audio)
    assert [event.data for event in events if isinstance(event, MediaDelta) if event.data] == ["QUJD"] * 3
    assert response_of(events).content.parts[0].transcript == "key [key]"
    image = MediaDelta("image/png", "QUJD")
    assert passed([StopAt("END")], [TextDelta("EN"), image]) == [TextDelta("EN"), image, END]


# What keeps its place


def test_citations_and_opaque_data_wait_for_the_text_before_them() -> None:
    citation, part = Citation("https://a.example", start=4, end=6), ProviderPart("x", "block", {"a": 1})
    one = filter_of(StopAt("END"))
    assert one.feed([TextDelta("The EN"), citation, part]) == [TextDelta("The ")]
    assert one.feed([TextDelta("X")]) == [TextDelta("ENX"), citation, part]


def test_positions_of_citations_count_in_the_text_that_is_delivered() -> None:
    text = "<think>no</think>Use sk-abcdef or sk-ghijkl now."
    spans = [text.index(word) for word in ("Use", "sk-abcdef", "or", "sk-ghijkl", "now")]
    sources = [Citation(start=at, end=at + 3) for at in spans]
    events = passed([ReasoningTags(), KEY], [TextDelta(text)], list(sources))
    delivered = text_of(events)
    assert delivered == "Use [key] or [key] now."
    found = [delivered[event.start : event.end] for event in events if isinstance(event, Citation)]
    assert found == ["Use", "[key]", "or ", "[key]", "now"]


def test_texts_beside_the_answer_are_redacted() -> None:
    source = Citation("https://a.example/sk-abcd", "Keys: sk-abcd", raw={"cited": ["sk-abcd", 1], "sk-abcd": None})
    end = ResponseFinished("refusal", "refusal", finish_details={"explanation": "It has sk-abcd"})
    block = ProviderPart("x", "block", {"content": [{"text": "sk-abcd", "n": 1}]})
    one = filter_of(KEY)
    assert one.feed([source, block, end]) == [
        Citation("https://a.example/[key]", "Keys: [key]", raw={"cited": ["[key]", 1], "[key]": None}),
        ProviderPart("x", "block", {"content": [{"text": "[key]", "n": 1}]}),
        ResponseFinished("refusal", "refusal", finish_details={"explanation": "It has [key]"}),
    ]


def test_log_probabilities_of_what_is_left_out_are_left_out() -> None:
    tokens = ["The", " key", " sk", "-", "abcd", ".", " E", "ND"]
    logprobs = [TokenLogprob(token, -1.0) for token in tokens]
    events = passed([KEY, StopAt("END")], *[[TextDelta(each.token, (each,))] for each in logprobs])
    assert text_of(events) == "The key [key]. "
    found = [each for event in events if isinstance(event, TextDelta) for each in event.logprobs]
    # " sk" and " E" are partly in a match.
    assert [each.token for each in found] == ["The", " key", "."]


def test_log_probabilities_that_are_not_the_text_go_with_all_of_it() -> None:
    one, two = TokenLogprob("<0xC3>", -1.0), TokenLogprob("<0xA9>", -2.0)
    assert passed([StopAt("é!")], [TextDelta("é", (one, two))], [TextDelta("?")]) == [
        TextDelta("é?", (one, two)),
        END,
    ]
    assert passed([KEY], [TextDelta("", (one,))]) == [TextDelta("", (one,)), END]


# Arguments of tool calls

SECRET = 'se"cret 𝔸é'


def call_events(pieces: list[str], *, custom: bool = False) -> list[Event]:
    text = "".join(pieces)
    value = None if custom else json.loads(text)
    finished = ToolCallFinished(0, "c", "f", text, value, None, custom)
    return [ToolCallStarted(0, "c", "f", custom), *[ToolCallDelta(0, piece) for piece in pieces], finished]


def arguments_of(events: list[Event]) -> tuple[str, Any]:
    (finished,) = [event for event in events if isinstance(event, ToolCallFinished)]
    deltas = "".join(event.arguments for event in events if isinstance(event, ToolCallDelta))
    assert deltas in ("", finished.arguments_text)
    return finished.arguments_text, finished.arguments


@given(st.booleans(), st.lists(st.integers(0, 80), max_size=8))
def test_arguments_are_searched_with_their_escapes_resolved(is_ascii: bool, positions: list[int]) -> None:
    value = {"a": f"x {SECRET}", SECRET: ["\n\\", f"{SECRET}{SECRET}"], "n": 4111, "e": "é \\u00e9"}
    text = json.dumps(value, ensure_ascii=is_ascii)
    filters = [Redact(SECRET, 'a "b"', literal=True, arguments=True), Redact("[0-9]{4}", "[n]", arguments=True)]
    found, parsed = arguments_of(passed(filters, call_events(cut(text, positions))))
    changed = {'a "b"' if name == SECRET else name: each for name, each in value.items()}
    assert parsed == {**changed, "a": 'x a "b"', 'a "b"': ["\n\\", 'a "b"a "b"'], "n": "[n]", "e": "é \\u00e9"}
    assert json.loads(found) == parsed


@given(st.lists(st.integers(0, 60), max_size=8))
def test_arguments_without_a_match_pass_byte_by_byte(positions: list[int]) -> None:
    text = r'{"a": "\u0041\/\ud83d\ude00 \ud83d x\\", "b": [1.0, "\\u0041"]}'
    events = passed([Redact("zz", arguments=True)], call_events(cut(text, positions)))
    assert arguments_of(events)[0] == text


def test_arguments_are_left_alone_without_request() -> None:
    events = call_events(['{"a": "sk-abcd"}'])
    assert passed([KEY], events) == [*events, END]


def test_arguments_that_arrive_as_a_whole_and_as_free_text_are_filtered() -> None:
    rule = Redact("sk-abcd", "[key]", arguments=True)
    whole = ToolCallFinished(0, "c", "f", '{"a": "sk-abcd"}', {"a": "sk-abcd"})
    assert arguments_of(passed([rule], [ToolCallStarted(0, "c", "f"), whole])) == ('{"a": "[key]"}', {"a": "[key]"})
    assert arguments_of(passed([rule], call_events(["a \\sk-", "abcd"], custom=True))) == ("a \\[key]", None)


def test_calls_side_by_side_are_separate_texts() -> None:
    starts = [ToolCallStarted(0, "a", "f"), ToolCallStarted(1, "b", "f")]
    pieces = [ToolCallDelta(0, '"sk-'), ToolCallDelta(1, '"abcd"'), ToolCallDelta(0, 'abcd"')]
    events = passed([Redact("sk-abcd", "[key]", arguments=True)], [*starts, *pieces])
    assert events == [*starts, ToolCallDelta(0, '"'), ToolCallDelta(1, '"abcd"'), ToolCallDelta(0, '[key]"'), END]


def test_a_stop_text_in_arguments_leaves_an_open_call() -> None:
    events = passed([StopAt("rm -rf", arguments=True)], call_events(['{"command": "ls; rm', ' -rf /"}']))
    (call,) = response_of(events).tool_calls
    assert (call.arguments_text, call.arguments_error) == ('{"command": "ls; ', "the call was cut off")
    assert events[-1].finish_reason == "stop"


# Guards


def test_a_guard_sees_the_end_of_the_text_once_for_each_read() -> None:
    seen: list[str] = []
    events = passed([KEY, Guard(seen.append, window=6)], *texts("abc", "def", "gh sk-abcd."), [ReasoningDelta("x")])
    assert seen == ["abc", "abcdef", "gh [key].", "x"]
    assert response_of(events).completion == "abcdefgh [key]."
    seen.clear()
    passed([Guard(seen.append, reasoning=False)], [TextDelta("a"), TextDelta("b")], [ReasoningDelta("x")])
    assert seen == ["ab"]


@pytest.mark.parametrize(("answer", "completion"), [(False, "one "), ("...", "one ..."), ("", "one ")])
def test_a_guard_ends_the_answer_before_the_text_that_it_refuses(answer: Any, completion: str) -> None:
    guard = Guard(lambda text: answer if "two" in text else None)
    one = filter_of(guard)
    events = one.feed([ResponseStarted(), TextDelta("one ")])
    events += one.feed([UsageReported(Usage(output_tokens=2)), TextDelta("tw"), TextDelta("o")])
    assert response_of(events).completion == completion
    assert events[-1] == ResponseFinished("content_filter", "guard")
    assert response_of(events).usage == Usage(output_tokens=2)
    assert one.feed([TextDelta("three")]) == []


@pytest.mark.parametrize(
    ("failing", "message"),
    [
        (lambda _: 1 / 0, "raised ZeroDivisionError"),
        (lambda text: (_ for _ in ()).throw(SystemExit(text)), "raised SystemExit"),
        (lambda _: 3, "returned int"),
        (lambda _: [], "returned list"),
    ],
)
def test_a_guard_that_fails_ends_the_call_with_an_error_of_ours(failing: Any, message: str) -> None:
    one = filter_of(Guard(lambda text: failing(text) if "two" in text else True))
    assert one.feed([TextDelta("one ")]) == [TextDelta("one ")]
    assert one.feed([TextDelta("two")]) == []
    assert isinstance(one.error, FilterError)
    assert message in str(one.error)
    assert "two" not in str(one.error)


def test_ctrl_c_in_a_guard_passes() -> None:
    def interrupted(text: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        filter_of(Guard(interrupted)).feed([TextDelta("a")])


def test_a_guard_sees_arguments_on_request() -> None:
    seen: list[str] = []
    whole = [ToolCallStarted(1, "d", "f"), ToolCallFinished(1, "d", "f", "[2]", [2])]
    passed([Guard(seen.append, arguments=True)], call_events(["[", "1]"]), whole)
    assert seen == ["[1]", "[2]"]
    events = passed([Guard(lambda _: False, arguments=True)], call_events(["[", "1]"]))
    assert events == [ToolCallStarted(0, "c", "f"), ResponseFinished("content_filter", "guard")]


# What cannot be filtered


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (StopAt, "needs texts"),
        (lambda: StopAt("a", ""), "needs texts"),
        (lambda: StopAt(["a"]), "needs texts"),
        (lambda: Redact(""), "is empty"),
        (lambda: Redact(b"a"), "as text, not bytes"),
        (lambda: Redact("a", b"b"), "must be text"),
        (lambda: Redact("a+"), "no longest match"),
        (lambda: RaiseAt("a*", max_length=5), "empty text"),
        (lambda: Redact(re.compile("a"), literal=True), "compiled pattern is no literal"),
        (lambda: Redact(re.compile(b"a")), "as text, not bytes"),
        (lambda: ReasoningTags("<a>", "<a>"), "two different tags"),
        (lambda: ReasoningTags("", "</a>"), "two different tags"),
        (lambda: Guard("a"), "function"),
        (lambda: Guard(print, window=0), "1 at least"),
        (lambda: compile_filters(StopAt("a")), "a list of filters"),
        (lambda: compile_filters("END"), "a list of filters"),
        (lambda: compile_filters(["END"]), "str is no filter"),
    ],
)
def test_bad_filters_are_refused(make: Any, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        make()


def test_an_async_guard_is_refused() -> None:
    async def check(text: str) -> None: ...

    with pytest.raises(ConfigurationError, match="not async"):
        Guard(check)


def test_equal_filters_have_the_same_digest_and_others_do_not() -> None:
    def digest(*filters: Filter) -> str:
        compiled = compile_filters(filters)
        assert compiled is not None
        return compiled.digest

    assert digest(StopAt("a"), KEY) == digest(StopAt("a"), Redact(r"sk-[a-z0-9]{4,}", "[key]", max_length=40))
    others = [
        [StopAt("a")],
        [StopAt("a", "b")],
        [StopAt("a"), StopAt("b")],
        [StopAt("b"), StopAt("a")],
        [StopAt("a", reasoning=True)],
        [StopAt("a", arguments=True)],
        [Redact("a")],
        [Redact("a", "b")],
        [Redact("a", arguments=True)],
        [Redact("a", reasoning=False)],
        [Redact("a", ignore_case=True)],
        [Redact("a.")],
        [Redact("a.", literal=True)],
        [Redact("a+", max_length=3)],
        [Redact("a+", max_length=4)],
        [RaiseAt("a")],
        [ReasoningTags()],
        [ReasoningTags("<a>", "</a>")],
        [],
    ]
    assert compile_filters([]) is None
    assert len({digest(*each) for each in others if each}) == len(others) - 1
