"""Answers of the page: they run in the server, are followed from any frame, stopped, and stored at any end."""

import asyncio
import base64
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from gateway.page.chat_page import DELETES, TEXT, PageClient, chat_page, chunks, numbers, open_chat_page, text_of
from gateway.test_bad_clients import until
from lm_deluge.events import MediaDelta
from lm_deluge.simulator import Fault, Pace, Script, Simulator

LONG = TEXT * 8
SLOW = Pace(tokens_per_second=150)


async def test_an_answer_is_streamed_and_stored(page: PageClient) -> None:
    conversation = await page.conversation(system="Be brief.")
    started = await page.ask(conversation, "What is\n  the answer?", settings={"temperature": 0.5})
    (running,) = started["answers"]
    assert (running["status"], running["parent"], running["parts"]) == ("running", started["message"]["id"], [])
    frames = await page.events(running["id"])
    assert text_of(frames) == TEXT
    assert numbers(frames) == [*range(len(numbers(frames)))]
    kinds = [chunk["type"] for chunk in chunks(frames)]
    assert (kinds[0], kinds[-1]) == ("start", "finish")
    assert frames.endswith("data: [DONE]\n\n")
    found = await page.json("GET", f"conversations/{conversation}")
    question, answer = found["messages"]
    assert (found["title"], found["head"], found["models"]) == ("What is the answer?", answer["id"], ["gpt-4o"])
    assert question["parts"] == [{"type": "text", "text": "What is\n  the answer?"}]
    assert answer["parts"] == [{"type": "text", "text": TEXT}]
    assert (answer["status"], answer["model"], answer["error"]) == ("complete", "gpt-4o", None)
    assert answer["usage"]["output_tokens"] > 0
    assert answer["cost"] == chunks(frames)[-1]["messageMetadata"]["cost"] > 0
    assert 0 <= answer["first_token_s"] <= answer["duration_s"]
    (request,) = page.simulator.requests
    assert request.json["messages"][0] == {"role": "system", "content": "Be brief."}
    assert request.json["temperature"] == 0.5
    (logged,) = page.serving.log.calls
    assert (logged.dialect, logged.status, logged.model) == ("page", 200, "gpt-4o")
    assert logged.cost == answer["cost"]


async def test_the_next_turn_has_the_branch_before_it_and_no_other(page: PageClient) -> None:
    conversation = await page.conversation()
    first = await page.answered(conversation, "First")
    await page.answered(conversation, "Edited", parent=None)
    other = await page.ask(conversation, None, parent=first["parent"])
    await page.events(other["answers"][0]["id"])
    await page.answered(conversation, "Second", parent=other["answers"][0]["id"])
    messages = [[each["content"] for each in request.json["messages"]] for request in page.simulator.requests]
    assert messages == [["First"], ["Edited"], ["First"], ["First", TEXT, "Second"]]
    found = (await page.json("GET", f"conversations/{conversation}"))["messages"]
    assert [each["parent"] for each in found].count(None) == 2
    assert [each["parent"] for each in found].count(first["parent"]) == 2


async def test_two_models_answer_side_by_side(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = {"gpt-4o": "One.", "gpt-4.1": "Two."}
    async with chat_page(tmp_path, monkeypatch, script) as page:
        conversation = await page.conversation()
        started = await page.ask(conversation, models=("gpt-4o", "gpt-4.1"))
        texts = await asyncio.gather(*(page.events(each["id"]) for each in started["answers"]))
        assert [*map(text_of, texts)] == ["One.", "Two."]
        assert {each["parent"] for each in started["answers"]} == {started["message"]["id"]}
        listed = await page.json("GET", "conversations")
        assert listed["conversations"][0]["models"] == ["gpt-4o", "gpt-4.1"]


async def test_an_answer_goes_on_without_a_reader_and_is_resumed_at_every_frame(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with chat_page(tmp_path, monkeypatch, LONG, pace=SLOW) as page:
        conversation = await page.conversation()
        (answer,) = (await page.ask(conversation))["answers"]
        async with page.http.stream("GET", f"/page/api/answers/{answer['id']}/events") as reader:
            part = await anext(reader.aiter_text())
        whole, again = await asyncio.gather(page.events(answer["id"]), page.events(answer["id"]))
        assert whole == again
        assert whole.startswith(part)
        assert text_of(whole) == LONG
        frames = whole.removesuffix("\n\n").split("\n\n")
        for position in range(-1, len(frames)):
            rest = await page.events(answer["id"], after=position if position >= 0 else None)
            assert rest.split("\n\n")[:-1] == frames[position + 1 :]
        by_header = await page.http.get(f"/page/api/answers/{answer['id']}/events", headers={"last-event-id": "5"})
        assert by_header.text.split("\n\n")[:-1] == frames[6:]
        assert page.simulator.stats.requests == 1


async def test_a_stopped_answer_keeps_its_text_and_is_billed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with chat_page(tmp_path, monkeypatch, LONG, pace=SLOW) as page:
        conversation = await page.conversation()
        (answer,) = (await page.ask(conversation))["answers"]
        reader = asyncio.create_task(page.events(answer["id"]))
        await until(lambda: page.simulator.stats.requests == 1)
        await asyncio.sleep(0.1)
        receipt = await page.json("POST", f"answers/{answer['id']}/stop", {})
        frames = await reader
        await until(lambda: page.simulator.stats.aborted == 1)
        stored = await page.message(conversation, answer["id"])
        assert LONG.startswith(receipt["text"])
        assert receipt["text"] == text_of(frames) == stored["parts"][0]["text"]
        assert len(receipt["text"]) < len(LONG)
        assert chunks(frames)[-1]["type"] == "abort"
        assert (stored["status"], stored["error"]) == ("stopped", None)
        assert receipt["usage"] == stored["usage"]
        assert receipt["cost"] == stored["cost"] == page.serving.log.calls[0].cost > 0
        assert page.serving.log.calls[0].status == 499
        assert await page.json("POST", f"answers/{answer['id']}/stop", {}) == receipt
        await page.ask(conversation, "Go on", parent=answer["id"])
        await until(lambda: page.simulator.stats.requests == 2)
        assert [each["content"] for each in page.simulator.requests[1].json["messages"]] == [
            "Hello",
            receipt["text"],
            "Go on",
        ]


@pytest.mark.parametrize(
    ("fault", "error", "is_retryable"),
    [
        (Fault("clean_truncation", after=6), "TruncatedError", True),
        (Fault("reset", after=6), "StreamInterruptedError", True),
        (Fault("in_band_error_mid", after=6), "ServerError", True),
        (Fault("status", status=401), "AuthenticationError", False),
    ],
)
async def test_a_broken_answer_keeps_its_text_and_has_its_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: Fault, error: str, is_retryable: bool
) -> None:
    async with chat_page(tmp_path, monkeypatch, LONG, faults=fault) as page:
        conversation = await page.conversation()
        (answer,) = (await page.ask(conversation))["answers"]
        frames = await page.events(answer["id"])
        stored = await page.message(conversation, answer["id"])
    assert stored["status"] == "failed"
    assert (stored["error"]["type"], stored["error"]["retryable"]) == (error, is_retryable)
    assert chunks(frames)[-1] == {"type": "error", "errorText": stored["error"]["message"]}
    assert "partial" not in stored["error"]["message"]  # the attribute is for programs
    kept = "".join(part["text"] for part in stored["parts"])
    assert kept == text_of(frames)
    assert LONG.startswith(kept)
    assert bool(kept) == (error != "AuthenticationError")


async def test_reasoning_is_shown_and_sent_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = [Script(reasoning="Let me think.", text="Four."), "Five."]
    async with chat_page(tmp_path, monkeypatch, script) as page:
        conversation = await page.conversation()
        options: dict[str, Any] = {"models": ("claude-sonnet-5-5",), "settings": {"reasoning_effort": "high"}}
        first = await page.answered(conversation, **options)
        assert first["parts"] == [{"type": "reasoning", "text": "Let me think."}, {"type": "text", "text": "Four."}]
        await page.answered(conversation, "More", parent=first["id"], **options)
        thinking = page.simulator.requests[1].json["messages"][1]["content"][0]
        assert (thinking["type"], thinking["thinking"]) == ("thinking", "Let me think.")
        assert thinking["signature"]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"models": []}, 400),
        ({"models": ["gpt-4o", "gpt-4o"]}, 400),
        ({"models": ["gpt-4o", "gpt-4.1", "gpt-4o-mini"]}, 400),
        ({"models": ["no-such-model"]}, 404),
        ({"message": None}, 400),
        ({"message": {"parts": []}}, 400),
        ({"message": {"parts": [{"type": "text", "text": "  "}]}}, 400),
        ({"message": {"parts": [{"type": "text", "text": "x"}] * 65}}, 400),
        ({"message": {"parts": [{"type": "system", "text": "x"}]}}, 400),
        ({"message": {"parts": [{"type": "file", "file_id": "0" * 32}]}}, 404),
        ({"parent": "0" * 32}, 404),
        ({"settings": {"temperature": 3}}, 400),
        ({"settings": {"temperature": "hot"}}, 400),
        ({"settings": {"base_url": "http://elsewhere"}}, 400),
        ({"other": 1}, 400),
    ],
)
async def test_bad_requests_are_refused_and_store_nothing(page: PageClient, body: dict[str, Any], status: int) -> None:
    conversation = await page.conversation()
    good = {"parent": None, "message": {"parts": [{"type": "text", "text": "Hello"}]}, "models": ["gpt-4o"]}
    refused = await page.json("POST", f"conversations/{conversation}/answers", {**good, **body}, status=status)
    assert set(refused["error"]) == {"type", "message"}
    assert (await page.json("GET", f"conversations/{conversation}"))["messages"] == []
    assert page.simulator.stats.requests == 0


async def test_what_a_model_cannot_take_is_refused_before_it_is_sent(page: PageClient) -> None:
    conversation = await page.conversation()
    refused = await page.ask(conversation, models=("chat-latest",), settings={"temperature": 0.1}, status=400)
    assert "temperature" in refused["error"]["message"]
    assert page.simulator.stats.requests == 0


async def test_a_message_follows_an_answer_that_has_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with chat_page(tmp_path, monkeypatch, LONG, pace=SLOW) as page:
        conversation = await page.conversation()
        started = await page.ask(conversation)
        answer, question = started["answers"][0]["id"], started["message"]["id"]
        await page.ask(conversation, "Too early", parent=answer, status=409)
        await page.ask(conversation, "After a question", parent=question, status=400)
        await page.ask(conversation, None, parent=answer, status=400)
        await page.json("POST", f"answers/{answer}/stop", {})


async def test_a_conversation_that_is_removed_stops_its_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with chat_page(tmp_path, monkeypatch, LONG, pace=SLOW) as page:
        conversation = await page.conversation()
        (answer,) = (await page.ask(conversation))["answers"]
        await until(lambda: page.simulator.stats.requests == 1)
        await page.json("DELETE", f"conversations/{conversation}", status=204)
        await until(lambda: page.simulator.stats.aborted == 1)
        await page.json("GET", f"conversations/{conversation}", status=404)
        await page.json("POST", f"answers/{answer['id']}/stop", {}, status=404)


async def test_answers_of_a_user_at_a_time_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with chat_page(tmp_path, monkeypatch, LONG, pace=Pace(tokens_per_second=1)) as page:
        conversation = await page.conversation()
        started = [await page.ask(conversation, f"{number}") for number in range(16)]
        refused = await page.ask(conversation, status=429)
        assert "running" in refused["error"]["message"]
        for each in started:
            await page.json("POST", f"answers/{each['answers'][0]['id']}/stop", {})
        await page.json("POST", f"answers/{(await page.ask(conversation))['answers'][0]['id']}/stop", {})


async def test_unknown_answers_have_no_events(page: PageClient) -> None:
    assert (await page.http.get(f"/page/api/answers/{'0' * 32}/events")).status_code == 204
    answer = await page.answered(await page.conversation())
    wrong = await page.http.get(f"/page/api/answers/{answer['id']}/events", headers={"last-event-id": "x:1"})
    assert wrong.status_code == 400


async def test_numbers_arrive_beside_a_long_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with chat_page(tmp_path, monkeypatch, LONG, pace=SLOW) as page:
        (answer,) = (await page.ask(await page.conversation()))["answers"]
        frames = chunks(await page.events(answer["id"]))
    progress = [chunk for chunk in frames if chunk["type"] == "data-progress"]
    assert 2 <= len(progress) <= 8  # four a second at most, and the answer takes a second or two
    assert all(chunk["transient"] for chunk in progress)
    tokens = [chunk["data"]["output_tokens"] for chunk in progress]
    assert tokens == sorted(tokens)
    assert set(progress[0]["data"]) == {"output_tokens", "tokens_per_s", "first_token_s", "cost"}


async def test_partial_text_is_stored_while_the_answer_grows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with chat_page(tmp_path, monkeypatch, LONG, pace=Pace(tokens_per_second=60)) as page:
        conversation = await page.conversation()
        (answer,) = (await page.ask(conversation))["answers"]

        async def stored() -> str:
            message = await page.message(conversation, answer["id"])
            assert message["status"] == "running"
            return "".join(part["text"] for part in message["parts"])

        while not (kept := await stored()):
            await asyncio.sleep(0.02)
        assert LONG.startswith(kept)
        await page.json("POST", f"answers/{answer['id']}/stop", {})


async def test_an_answer_that_the_server_ends_is_stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with chat_page(tmp_path, monkeypatch, LONG, pace=SLOW) as page:
        conversation = await page.conversation()
        (answer,) = (await page.ask(conversation))["answers"]
        await until(lambda: page.simulator.stats.requests == 1)
        await asyncio.sleep(0.1)
    async with Simulator(TEXT) as simulator, open_chat_page(tmp_path, simulator) as again:
        stored = await again.message(conversation, answer["id"])
    assert stored["status"] == "failed"
    assert stored["error"]["retryable"]
    assert LONG.startswith(stored["parts"][0]["text"])


async def test_requests_of_other_content_types_are_refused(page: PageClient) -> None:
    conversation = await page.conversation()
    for headers in ({"content-type": "text/plain"}, {}):
        for method, path in (
            ("POST", "conversations"),
            ("POST", f"conversations/{conversation}/answers"),
            ("PATCH", f"conversations/{conversation}"),
            ("DELETE", f"conversations/{conversation}"),
            ("POST", "answers/x/stop"),
            ("POST", "session"),
            ("DELETE", "session"),
        ):
            answer = await page.http.request(method, f"/page/api/{path}", content=b"{}", headers=headers)
            assert answer.status_code == 415, (method, path)
    assert (await page.http.post("/page/api/conversations", content=b"{", headers=DELETES)).status_code == 400


async def test_generated_images_are_files_of_the_conversation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    png = b"\x89PNG\r\n\x1a\n" + b"\0" * 16
    image = MediaDelta(media_type="image/png", data=base64.b64encode(png).decode())
    async with chat_page(tmp_path, monkeypatch, Script(text="Here:", extra=[image])) as page:
        conversation = await page.conversation()
        answer = await page.answered(conversation, models=("gemini-3-pro-image",))
        text, shown = answer["parts"]
        assert (text["text"], shown["type"], shown["name"]) == ("Here:", "image", "image-1.png")
        assert (await page.http.get(f"/page/api/files/{shown['file_id']}")).content == png
        await page.json("DELETE", f"conversations/{conversation}", status=204)
        await page.json("GET", f"files/{shown['file_id']}", status=404)


async def test_the_title_of_a_message_without_text_is_the_name_of_its_file(page: PageClient) -> None:
    headers = {"x-file-name": "report.txt", "content-type": "text/plain"}
    file = (await page.http.post("/page/api/files", content=b"text", headers=headers)).json()
    conversation = await page.conversation()
    await page.answered(conversation, " ", files=({"file_id": file["file_id"]},))
    assert (await page.json("GET", f"conversations/{conversation}"))["title"] == "report.txt"


async def test_a_text_with_nul_is_stored(page: PageClient) -> None:
    conversation = await page.conversation()
    answer = await page.answered(conversation, "a\0b")
    found = await page.json("GET", f"conversations/{conversation}")
    assert found["title"] == "a b"
    assert (await page.message(conversation, answer["parent"]))["parts"][0]["text"] == "a\0b"


FULL = """CREATE TRIGGER full BEFORE UPDATE ON deluge_page_messages WHEN NEW.status <> 'running'
BEGIN SELECT RAISE(FAIL, 'database or disk is full'); END"""
ENDS = {"complete": None, "failed": "clean_truncation"}


@pytest.mark.parametrize("status", ENDS)
async def test_an_answer_whose_end_the_database_does_not_take_is_kept_until_it_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: str
) -> None:
    async with chat_page(tmp_path, monkeypatch, faults=ENDS[status]) as page:
        conversation = await page.conversation()
        with sqlite3.connect(tmp_path / "page.db") as disk:
            disk.execute(FULL)
        (answer,) = (await page.ask(conversation))["answers"]
        frames = chunks(await page.events(answer["id"]))
        assert [chunk["type"] for chunk in frames[-2:]] != ["data-unsaved"]
        (unsaved,) = [chunk["data"] for chunk in frames if chunk["type"] == "data-unsaved"]
        assert unsaved["message"].startswith("the database of the gateway failed")
        kept = await page.message(conversation, answer["id"])
        assert (kept["status"], kept["unsaved"]) == (status, True)
        assert text_of_parts(kept)
        assert (kept["error"] is not None) == (status == "failed")
        receipt = await page.json("POST", f"answers/{answer['id']}/stop", {})
        assert receipt["text"] == text_of_parts(kept)
        row = "SELECT status, text FROM deluge_page_messages WHERE id = ?"
        assert disk.execute(row, (answer["id"],)).fetchone() == ("running", "")
        with disk:
            disk.execute("DROP TRIGGER full")
        again = await page.answered(conversation, "And now?", parent=answer["id"])
        assert again["status"]
        assert disk.execute(row, (answer["id"],)).fetchone() == (status, text_of_parts(kept))
        disk.close()
        stored = await page.message(conversation, answer["id"])
        assert stored == {**kept, "unsaved": False}


def text_of_parts(message: dict[str, Any]) -> str:
    return "".join(part["text"] for part in message["parts"] if part["type"] == "text")


async def test_a_stopped_answer_that_is_billed_whole_is_read_to_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Google bills all of an answer: the page has its end at once, and the cost follows."""
    async with chat_page(tmp_path, monkeypatch, LONG, pace=SLOW) as page:
        conversation = await page.conversation()
        (answer,) = (await page.ask(conversation, models=("gemini-3.8-flash",)))["answers"]
        reader = asyncio.create_task(page.events(answer["id"]))
        await until_text(page, answer["id"])
        receipt = await page.json("POST", f"answers/{answer['id']}/stop", {})
        frames = await reader
        assert chunks(frames)[-1]["type"] == "abort"
        stopped = await page.message(conversation, answer["id"])
        assert (stopped["status"], page.simulator.stats.completed) == ("stopped", 0)
        assert receipt["text"] == text_of_parts(stopped) != LONG
        async with asyncio.timeout(10):
            while not page.serving.log.calls:
                await asyncio.sleep(0.01)
        booked = await page.message(conversation, answer["id"])
        (call,) = page.serving.log.calls
        assert (page.simulator.stats.completed, page.simulator.stats.aborted) == (1, 0)
        assert (booked["cost"], booked["usage"]["output_tokens"]) == (pytest.approx(call.cost), call.output_tokens)
        assert booked["cost"] > stopped["cost"]
        assert (booked["status"], booked["parts"]) == ("stopped", stopped["parts"])
        assert (await page.events(answer["id"])) == frames


async def until_text(page: PageClient, answer: str) -> None:
    log = page.serving.gateway._services.streams.find(answer, None)
    while log is None or not any(b"text-delta" in frame for frame in log.frames):
        await asyncio.sleep(0.005)


async def test_a_reader_gets_the_end_although_the_database_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with chat_page(tmp_path, monkeypatch, LONG, pace=SLOW) as page:
        (answer,) = (await page.ask(await page.conversation()))["answers"]
        reader = asyncio.create_task(page.events(answer["id"]))
        with sqlite3.connect(tmp_path / "page.db") as connection:
            connection.execute("DROP TABLE deluge_page_messages")
        frames = await reader
    assert text_of(frames) == LONG
    assert chunks(frames)[-1]["type"] == "finish"
    assert page.serving.log.calls[0].status == 200
