"""A notebook that `nbclient` executes: the records that the saved file has, counted and compared."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nbclient
import nbformat
import pytest

SOURCE = Path(__file__).resolve().parents[3] / "src"

CELLS = {
    "start": f"""
import sys, warnings
sys.path.insert(0, {str(SOURCE)!r})
warnings.simplefilter("always")
from lm_deluge import LLMClient
from lm_deluge.simulator import Pace, Simulator
script = "A **long** answer. " + "word " * 200 + "end"
simulator = Simulator(script, pace=Pace(tokens_per_second=400))
thread = simulator.start_in_thread()
thread.__enter__()
client = LLMClient("gpt-5.4", base_url=simulator.base_url, api_key="k")
""",
    "display": 'await client.stream("Hi").display()',
    "display, then use": 'response = await client.stream("Hi").display()\nprint(response.finish_reason)',
    "the response in another cell": "response",
    "sync": 'client.stream_sync("Hi").display()',
    "echo": 'await client.stream("Hi")',
    "batch": 'answers = await client.process_prompts_async(["q"] * 20)',
    "sync batch": 'answers = client.process_prompts_sync(["q"] * 20)',
    "tqdm": 'answers = client.process_prompts_sync(["q"] * 20, progress="tqdm")',
    "broken": """
broken = Simulator("Only a part of it", faults="cut_chunk")
broken_thread = broken.start_in_thread()
broken_thread.__enter__()
await LLMClient("gpt-5.4", base_url=broken.base_url, api_key="k", max_attempts=1).stream("Hi").display()
""",
    "interrupted": """
import signal, threading
main = threading.main_thread().ident
threading.Timer(0.3, signal.pthread_kill, (main, signal.SIGINT)).start()
await client.stream("Hi").display()
""",
    "interrupted sync": """
threading.Timer(0.3, signal.pthread_kill, (main, signal.SIGINT)).start()
client.stream_sync("Hi").display()
""",
    "failing display": """
import IPython.display
def display(*args, **kwargs): raise RuntimeError("no display")
kept, IPython.display.display = IPython.display.display, display
response = await client.stream("Hi").display()
IPython.display.display = kept
print(response.finish_reason)
""",
    "end": "await client.close()\nthread.__exit__(None, None, None)\nbroken_thread.__exit__(None, None, None)",
}
TEXT = "A **long** answer. " + "word " * 200 + "end"


@pytest.fixture(scope="module")
def outputs() -> dict[str, list[dict[str, Any]]]:
    """Return the records of each cell, as the saved file has them."""
    make = nbformat.v4
    notebook = make.new_notebook(cells=[make.new_code_cell(source.strip()) for source in CELLS.values()])
    nbclient.NotebookClient(notebook, timeout=60, kernel_name="python3", allow_errors=True).execute()
    saved = json.loads(nbformat.writes(notebook))
    return {name: cell["outputs"] for name, cell in zip(CELLS, saved["cells"], strict=True)}


def test_the_notebook_starts_and_ends_without_output(outputs: dict[str, list[dict[str, Any]]]) -> None:
    assert outputs["start"] == []
    assert outputs["end"] == []


def joined(content: str | list[str]) -> str:
    return "".join(content)


@pytest.mark.parametrize("name", ["display", "sync"])
def test_a_displayed_answer_is_one_record(name: str, outputs: dict[str, list[dict[str, Any]]]) -> None:
    (record,) = outputs[name]
    assert record["output_type"] == "display_data"
    assert {kind: joined(text) for kind, text in record["data"].items()} == {"text/markdown": TEXT, "text/plain": TEXT}


def test_the_response_can_be_used(outputs: dict[str, list[dict[str, Any]]]) -> None:
    shown, printed = outputs["display, then use"]
    assert joined(shown["data"]["text/markdown"]) == TEXT
    assert joined(printed["text"]) == "stop\n"
    (result,) = outputs["the response in another cell"]
    assert result["output_type"] == "execute_result"
    assert joined(result["data"]["text/plain"]).startswith("APIResponse(")


def test_a_printed_answer_is_one_record(outputs: dict[str, list[dict[str, Any]]]) -> None:
    (record,) = outputs["echo"]
    assert record["output_type"] == "display_data"
    assert {kind: joined(text) for kind, text in record["data"].items()} == {"text/plain": TEXT}


@pytest.mark.parametrize("name", ["batch", "sync batch", "tqdm"])
def test_the_progress_of_a_batch_is_one_record_without_warnings(
    name: str, outputs: dict[str, list[dict[str, Any]]]
) -> None:
    (record,) = outputs[name]
    assert record["output_type"] == "display_data"
    assert joined(record["data"]["text/plain"]).startswith("20/20 (100%), ")
    assert joined(record["data"]["text/html"]).startswith('<progress style="width: 100%" value="20" max="20">')


def test_a_broken_answer_keeps_its_part(outputs: dict[str, list[dict[str, Any]]]) -> None:
    shown, error = outputs["broken"]
    part, _, note = joined(shown["data"]["text/plain"]).partition("\n\n")
    assert part
    assert "Only a part of it".startswith(part)
    assert note.startswith("[StreamInterruptedError: ")
    assert error["output_type"] == "error"
    assert error["ename"] == "StreamInterruptedError"


@pytest.mark.parametrize("name", ["interrupted", "interrupted sync"])
def test_an_interrupted_answer_keeps_its_part(name: str, outputs: dict[str, list[dict[str, Any]]]) -> None:
    shown, error = outputs[name]
    part, _, note = joined(shown["data"]["text/plain"]).partition("\n\n")
    assert part not in ("", TEXT)
    assert TEXT.startswith(part.rstrip())
    assert note == "[Interrupted: the answer is incomplete]"
    assert error["output_type"] == "error"


def test_a_failing_display_does_not_end_the_answer(outputs: dict[str, list[dict[str, Any]]]) -> None:
    (printed,) = outputs["failing display"]
    assert joined(printed["text"]) == "stop\n"
