"""The native API: a model of an unknown family uses OpenAI's format, Claude its own."""

from hypothesis import strategies as st

from encoders.answers import answers, normal_form
from lm_deluge.events import Event, ResponseStarted
from mirrors import anthropic_messages

API = "bedrock-invoke"


def _of_claude(events: list[Event]) -> list[Event]:
    start = events[0]
    assert isinstance(start, ResponseStarted)
    return [ResponseStarted(start.response_id, "claude-3-5-sonnet-20240620"), *events[1:]]


@st.composite
def _in_normal_form(draw):
    return normal_form(draw(answers(in_order=True, with_logprobs=False)))


ANSWERS = _in_normal_form() | anthropic_messages.ANSWERS.map(_of_claude)
