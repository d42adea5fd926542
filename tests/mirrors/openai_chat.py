"""Chat Completions: everything except the position of calls, usage and opaque data, which move to the end."""

from hypothesis import strategies as st

from encoders.answers import answers, normal_form

API = "openai-chat"


@st.composite
def _in_normal_form(draw):
    return normal_form(draw(answers(in_order=True, with_logprobs=False)))


ANSWERS = _in_normal_form()
