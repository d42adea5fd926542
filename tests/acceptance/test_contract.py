"""What users import and call: names, signatures and defaults, pinned."""

import inspect
from collections.abc import AsyncGenerator

import lm_deluge
from lm_deluge import APIResponse, Conversation, LLMClient, Message, SamplingParams
from lm_deluge.api_requests import openai
from lm_deluge.client.stream import Stream
from lm_deluge.client.sync import SyncStream


def test_what_the_package_exports() -> None:
    assert lm_deluge.__all__ == [
        "APIResponse",
        "Conversation",
        "DelugeError",
        "File",
        "LLMClient",
        "MCPServer",
        "Message",
        "SamplingParams",
        "Timeouts",
        "Tool",
        "Usage",
        "execute_tool_calls",
    ]
    assert all(getattr(lm_deluge, name).__name__ == name for name in lm_deluge.__all__)


def test_where_else_things_are_found() -> None:
    import lm_deluge.config
    import lm_deluge.errors
    import lm_deluge.events
    import lm_deluge.testing

    assert lm_deluge.config.SamplingParams is SamplingParams
    assert lm_deluge.config.Timeouts is lm_deluge.Timeouts
    assert lm_deluge.errors.DelugeError is lm_deluge.DelugeError
    assert {"TextDelta", "ResponseStarted", "ResponseFinished", "Attempt"} <= set(lm_deluge.events.__all__)
    assert lm_deluge.testing.__all__ == ["decode_body", "decode_events", "encode_events"]


def parameters(function: object) -> dict[str, tuple[str, object]]:
    found = inspect.signature(function).parameters.values()  # type: ignore[arg-type]
    return {each.name: (each.kind.name, each.default) for each in found}


ANY = inspect.Parameter.empty
OWN = {
    "tools": ("KEYWORD_ONLY", None),
    "sampling_params": ("KEYWORD_ONLY", None),
    "output": ("KEYWORD_ONLY", None),
    "cache": ("KEYWORD_ONLY", None),
    "prefer_model": ("KEYWORD_ONLY", None),
    "max_cost": ("KEYWORD_ONLY", None),
    "priority": ("KEYWORD_ONLY", "interactive"),
    "smooth": ("KEYWORD_ONLY", None),
}


def test_the_client_and_its_streams() -> None:
    assert parameters(LLMClient)["model"] == ("POSITIONAL_OR_KEYWORD", None)  # or model_names, as the older lm-deluge
    prompt = {"self": ("POSITIONAL_OR_KEYWORD", ANY), "prompt": ("POSITIONAL_OR_KEYWORD", ANY)}
    sampling = {"sampling": ("VAR_KEYWORD", ANY)}
    assert parameters(LLMClient.stream) == {**prompt, **OWN, "echo": ("KEYWORD_ONLY", "stdout"), **sampling}
    assert parameters(LLMClient.stream_sync) == {**prompt, **OWN, **sampling}
    named = dict.fromkeys(("ids", "journal", "output", "tools"), ("KEYWORD_ONLY", None))
    assert parameters(LLMClient.answers) == {
        "self": ("POSITIONAL_OR_KEYWORD", ANY),
        "prompts": ("POSITIONAL_OR_KEYWORD", ANY),
        **named,
        "retry_failed": ("KEYWORD_ONLY", False),
        "options": ("VAR_KEYWORD", ANY),
    }
    assert not inspect.iscoroutinefunction(LLMClient.stream)


def test_a_stream_can_be_taken_in_each_promised_way() -> None:
    for name in ("__await__", "__aiter__", "__aenter__", "__aexit__", "events", "cancel", "response", "stats"):
        assert hasattr(Stream, name)
    for name in ("__iter__", "__enter__", "__exit__", "events", "cancel", "response", "stats"):
        assert hasattr(SyncStream, name)


def test_stream_chat_is_an_asynchronous_generator() -> None:
    assert inspect.isasyncgenfunction(openai.stream_chat)
    found = parameters(openai.stream_chat)
    assert list(found)[:3] == ["model_name", "prompt", "sampling_params"]
    assert found["model_name"] == ("POSITIONAL_OR_KEYWORD", ANY)
    assert found["sampling_params"] == ("POSITIONAL_OR_KEYWORD", None)
    assert {kind for kind, _ in list(found.values())[3:]} == {"KEYWORD_ONLY"}
    assert (
        inspect.signature(openai.stream_chat, eval_str=True).return_annotation
        == (AsyncGenerator[str | APIResponse, None])
    )


def test_user_starts_on_the_class_and_appends_on_an_instance() -> None:
    started = Conversation.user("one")
    assert [message.completion for message in started] == ["one"]
    assert started.user("two") is started
    assert [message.completion for message in started] == ["one", "two"]
    assert [message.completion for message in Conversation.user("three")] == ["three"]
    for form in (Conversation.user, started.user):
        assert "user" in (form.__doc__ or "")


def test_add_chains_and_takes_messages() -> None:
    conversation = Conversation().add(Message.system("s")).add(Message.user("u"))
    assert [message.role for message in conversation] == ["system", "user"]


def test_the_response_has_what_the_guide_reads() -> None:
    fields = set(APIResponse.__struct_fields__) | {name for name in dir(APIResponse) if not name.startswith("_")}
    promised = """id model_internal model_external content completion thinking tool_calls usage cost finish_reason
        raw_finish_reason status_code request_id response_id is_error error error_message stats local_cache_hit
        to_dict from_dict"""
    assert set(promised.split()) <= fields
