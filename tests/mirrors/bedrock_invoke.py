"""The native API: a model of no family answers in OpenAI's form."""

from hypothesis import strategies as st

from encoders.answers import answers, normal_form

API = "bedrock-invoke"


@st.composite
def _in_normal_form(draw):
    return normal_form(draw(answers(in_order=True, with_logprobs=False)))


ANSWERS = _in_normal_form()
