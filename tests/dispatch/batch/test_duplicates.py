"""Calls with equal requests are found, and no others."""

from lm_deluge.config import SamplingParams
from lm_deluge.dispatch.batch.duplicates import Duplicates, answer_again
from lm_deluge.prompt.conversation import Conversation
from lm_deluge.prompt.message import Message
from lm_deluge.response import APIResponse
from lm_deluge.usage import Usage


def test_the_first_one_stands_for_all() -> None:
    found = Duplicates[str]()
    assert found.first("a", Conversation.user("one"), None) == "a"
    assert found.first("b", Conversation.user("one"), None) == "a"
    assert found.first("c", Conversation.user("one"), SamplingParams(temperature=1)) == "c"
    assert found.first("d", Conversation.user("one"), SamplingParams(temperature=1)) == "c"
    assert found.first("e", Conversation.system("one"), None) == "e"
    assert found.first("f", Conversation.user("on").user("e"), None) == "f"
    image = b"\x89PNG\r\n\x1a\n" + bytes(20)
    assert found.first("g", Conversation.user("one", image=image), None) == "g"
    assert found.first("h", Conversation.user("one", image=image), None) == "g"


def test_what_cannot_be_written_down_is_like_nothing_else() -> None:
    found = Duplicates[int]()
    assert found.first(0, Conversation.user("one"), {"x": object()}) == 0
    assert found.first(1, Conversation.user("one"), {"x": object()}) == 1


def test_an_answer_is_paid_once() -> None:
    response = APIResponse(content=Message.assistant("yes"), usage=Usage(input_tokens=3), cost=0.5)
    again = answer_again(response)
    assert (again.completion, again.usage, again.cost) == ("yes", None, 0.0)
    assert (response.usage, response.cost) == (Usage(input_tokens=3), 0.5)
    assert answer_again(APIResponse()).cost is None
