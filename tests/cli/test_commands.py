"""Help, `models`, `decode` and `simulate`."""

import datetime as dt
import io
import json
import re
import signal
import subprocess
import sys
import threading
import urllib.request
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from click.shell_completion import ShellComplete
from click.testing import CliRunner

from cli.driver import PATIENCE_S, clean_environment, run, start, terminal
from lm_deluge.cli.exits import EXIT_CODES
from lm_deluge.cli.main import cli
from lm_deluge.events import ResponseFinished, ResponseStarted, TextDelta
from lm_deluge.models.registry import list_models, snapshot_date
from lm_deluge.testing import encode_events

COMMANDS = ["stream", "chat", "batch", "models", "decode", "simulate"]
PAGE = Path(__file__).resolve().parents[2] / "docs" / "command-line.md"
TEXT = "one \x1b[31m\u6f22 two"
BODY = b"".join(encode_events("openai-chat", [ResponseStarted("r1", "m"), TextDelta(TEXT), ResponseFinished("stop")]))


def help_of(*arguments: str) -> str:
    return CliRunner().invoke(cli, [*arguments, "--help"], prog_name="deluge", terminal_width=100).output


@pytest.mark.parametrize("arguments", ["--help", "--version"])
def test_help_imports_nothing_that_is_slow(home, arguments):
    program = (
        "import sys\n"
        "from lm_deluge.cli.main import main\n"
        "try:\n    main([sys.argv[1]])\n"
        "finally:\n    print(sorted({'aiohttp', 'rich', 'prompt_toolkit', 'pygments', 'asyncio'} & set(sys.modules)))"
    )
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-c", program, arguments],
        capture_output=True,
        env=clean_environment(home),
        timeout=PATIENCE_S,
        check=True,
    )
    assert done.stdout.rstrip().endswith(b"[]"), done


def test_help_names_commands_and_exit_codes():
    text = " ".join(help_of().split())
    assert all(f" {command} " in text for command in COMMANDS)
    assert all(f"{code} {meaning}" in text for code, meaning in EXIT_CODES.items())


@pytest.mark.parametrize("command", [(), *((name,) for name in COMMANDS)])
def test_the_page_shows_the_help_unchanged(command):
    title = " ".join(("deluge", *command))
    block = re.search(rf"```text\n\$ {title} --help\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    assert block is not None
    assert block[1].strip() == help_of(*command).strip()


@pytest.mark.parametrize(
    ("words", "incomplete", "expected"),
    [
        ([], "st", ["stream"]),
        (["stream", "-m"], "gpt-4o-mini-2024", ["gpt-4o-mini-2024-07-18"]),
        (["-m"], "gpt-4o-mini-2024", ["gpt-4o-mini-2024-07-18"]),  # without a subcommand
        (["chat", "--model"], "ollam", ["ollama:", "ollama-openai:"]),
        (["batch", "-m"], "simul", ["simulator", "simulator:"]),
        (["stream", "-o"], "top_", ["top_p", "top_logprobs"]),
        (["stream"], "--extr", ["--extract"]),
    ],
)
def test_a_shell_completes(words, incomplete, expected):
    complete = ShellComplete(cli, {}, "deluge", "_DELUGE_COMPLETE")
    assert [item.value for item in complete.get_completions(words, incomplete)] == expected


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_documented_variable_prints_the_script_of_a_shell(home, shell):
    done = run(home=home, _DELUGE_COMPLETE=f"{shell}_source")
    assert done.returncode == 0
    assert b"_DELUGE_COMPLETE" in done.stdout
    assert f"_DELUGE_COMPLETE={shell}_source" in PAGE.read_text("utf-8")


def test_models_on_a_pipe_are_tab_separated(home):
    done = run("models", "--search", "gpt-4o", home=home)
    head, *lines = [line.split("\t") for line in done.stdout.decode().splitlines()]
    assert head[0] == "model"
    assert {len(line) for line in lines} == {len(head)}
    assert [line[0] for line in lines] == [row.id for row in list_models(search="gpt-4o") if is_live(row)]
    every = run("models", "--all", "--search", "gpt-4o", home=home).stdout.decode().splitlines()[1:]
    assert [line.split("\t")[0] for line in every] == [row.id for row in list_models(search="gpt-4o")]
    assert len(every) > len(lines)


def is_live(row):
    return row.status_on(dt.datetime.now(tz=dt.UTC).date().isoformat()) != "retired"


def test_models_show_when_they_end(home):
    folder = home / ".config" / "lm_deluge"
    folder.mkdir(parents=True)
    rows = {
        "zz-ended": "retires = '2001-01-01'",
        "zz-late": "status = 'deprecated'\nretires = '2999-01-01'",
        "zz-on": "",
    }
    tables = [f"[models.{name}]\nprovider = 'groq'\n{fields}\n" for name, fields in rows.items()]
    (folder / "models.toml").write_text("\n".join(tables), "utf-8")
    piped = run("models", "--all", "--search", "zz-", home=home).stdout.decode().splitlines()
    assert [line.split("\t")[-2:] for line in piped] == [
        ["status", "retires"],
        ["retired", "2001-01-01"],
        ["deprecated", "2999-01-01"],
        ["", ""],
    ]
    with terminal("models", "--all", "--search", "zz-", home=home) as tty:
        assert tty.end() == 0
        text = tty.screen.text
    assert re.search(r"model.*ends\n", text)
    assert re.search(r"zz-ended .*2001-01-01", text)
    assert re.search(r"zz-late .*2999-01-01", text)
    with terminal("models", "--search", "zz-on", home=home) as tty:
        assert tty.end() == 0
        assert "ends" not in tty.screen.text


def test_models_that_have_ended_are_named_when_nothing_else_matches(home):
    folder = home / ".config" / "lm_deluge"
    folder.mkdir(parents=True)
    (folder / "models.toml").write_text("[models.gone]\nprovider = 'groq'\nretires = '2001-01-01'\n", "utf-8")
    done = run("models", "--search", "gone", home=home)
    assert b"deluge models --all" in done.stderr
    (row,) = json.loads(run("models", "--json", "--all", "--search", "gone", home=home).stdout)
    assert (row["id"], row["status"]) == ("gone", "retired")


def test_models_shows_the_price_of_today(home):
    folder = home / ".config" / "lm_deluge"
    folder.mkdir(parents=True)
    changes = "[{ start = '2001-01-01', price = { input = 7, output = 8 } }]"
    price = f"{{ input = 1, output = 2, changes = {changes} }}"
    (folder / "models.toml").write_text(f"[models.mine]\nprovider = 'groq'\nprice = {price}\n", "utf-8")
    (row,) = json.loads(run("models", "--json", "--search", "mine", home=home).stdout)
    assert (row["price"]["input"], row["price"]["output"]) == (7.0, 8.0)


def test_models_as_json(home):
    rows = json.loads(run("models", "--json", "--provider", "openai", home=home).stdout)
    assert rows
    assert {row["provider"] for row in rows} == {"openai"}


def test_models_lists_the_rows_of_the_user(home):
    folder = home / ".config" / "lm_deluge"
    folder.mkdir(parents=True)
    (folder / "models.toml").write_text(
        "[models.mine]\nprovider = 'groq'\nprice = { input = 1, output = 2 }\n", "utf-8"
    )
    (row,) = json.loads(run("models", "--json", "--search", "mine", "--provider", "groq", home=home).stdout)
    assert (row["id"], row["price"]["output"]) == ("mine", 2.0)


def test_a_file_of_rows_that_is_wrong_is_named(home):
    folder = home / ".config" / "lm_deluge"
    folder.mkdir(parents=True)
    (folder / "models.toml").write_text("[models.mine]\nprovider = 'groq'\ntypo = 2\n", "utf-8")
    done = run("models", home=home)
    assert done.returncode == 2
    assert b"models.toml: models.mine: object contains unknown field `typo`" in done.stderr
    assert b"Traceback" not in done.stderr


def test_unknown_models(home):
    done = run("models", "--search", "nonsense", home=home)
    assert done.returncode == 0
    assert b"provider:model" in done.stderr
    assert run("models", "--provider", "opneai", home=home).returncode == 2


@pytest.mark.parametrize("columns", [100, 80, 40])
def test_models_on_a_terminal_are_a_table_that_fits(home, columns):
    with terminal("models", "--search", "gpt-4", home=home, columns=columns) as tty:
        assert tty.end() == 0
        lines = tty.screen.text.split("\n")
        assert all(len(line) <= columns for line in lines)
        # A name that is too long continues in the next row.
        rule = next(index for index, line in enumerate(lines) if "\u2500" in line)
        *listed, foot = [line for line in lines[rule + 1 :] if line.strip()]
        assert foot.split()[-1] == snapshot_date()
        names = "".join(line.split()[0] for line in listed)
        assert names == "".join(row.id for row in list_models(search="gpt-4") if is_live(row))


def test_decode(home):
    (home / "body").write_bytes(BODY)
    done = run("decode", "openai-chat", "body", home=home)
    assert done.returncode == 0
    assert done.stdout == TEXT.encode()
    assert done.stderr.startswith(b"stop")


def test_decode_from_stdin_as_events_and_as_json(home):
    done = run("decode", "openai-chat", "-", "--events", home=home, stdin=BODY)
    kinds = [json.loads(line)["type"] for line in done.stdout.splitlines()]
    assert kinds[0] == "response_started"
    assert kinds[-1] == "response_finished"
    done = run("decode", "openai-chat", "-", "--json", home=home, stdin=BODY)
    assert json.loads(done.stdout)["content"]["parts"][0]["text"] == TEXT


def test_decode_of_a_body_that_was_cut_off_shows_the_text_and_fails(home):
    done = run("decode", "openai-chat", "-", home=home, stdin=BODY[: BODY.rindex(b"data: {")])
    assert done.returncode == 1
    assert done.stdout == TEXT.encode()
    assert b"deluge: " in done.stderr


def test_decode_used_wrongly(home):
    assert run("decode", "nonsense", "-", home=home, stdin=b"").returncode == 2
    assert run("decode", "openai-chat", "nowhere", home=home).returncode == 2


def test_simulate_serves_until_ctrl_c(home):
    (home / "script.json").write_text('[{"text": "**one**", "reasoning": "hm"}, "two"]')
    server = start("simulate", "--script", "script.json", "--fault", "none", "--fault", "status_401", home=home)
    url = server.stdout.readline().decode().strip()
    lines = [server.stderr.readline() for _ in range(4)]
    root = url.removesuffix("/v1")
    assert lines[-1] == f"The other wire APIs are at {root}, that of Mistral at {root}/mistral.\n".encode()
    assert f"  export OPENAI_BASE_URL={url}\n".encode() in lines
    env = {"OPENAI_API_KEY": "any-text", "OPENAI_BASE_URL": url}
    assert run("stream", "hi", home=home, **env).stdout == b"**one**"
    assert run("stream", "hi", home=home, **env).returncode == 1
    assert run("stream", "hi", home=home, **env).stdout == b"two"
    server.send_signal(signal.SIGINT)
    out, err = server.communicate(timeout=PATIENCE_S)
    assert (server.returncode, out, err) == (130, b"", b"")


def test_simulate_lists_its_faults(home):
    done = run("simulate", "--list-faults", home=home)
    assert done.returncode == 0
    assert b"\nreset " in done.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ["--fault", "nonsense"],
        ["--host", "0.0.0.0"],  # noqa: S104
        ["--port", "70000"],
        ["--rate", "0"],
        ["--always"],
        ["--script", "nowhere.json"],
        ["--script", "wrong.json"],
    ],
)
def test_simulate_used_wrongly(home, arguments):
    (home / "wrong.json").write_text('{"txt": "typo"}')
    done = run("simulate", *arguments, home=home)
    assert done.returncode == 2
    assert b"Traceback" not in done.stderr


def test_a_port_that_is_taken(serve, home):
    taken = serve("x").base_url
    port = re.search(r":(\d+)/", taken)[1]
    done = run("simulate", "--port", port, home=home)
    assert done.returncode == 2
    assert f"cannot listen on port {port}".encode() in done.stderr
    with urllib.request.urlopen(f"{taken}/models", timeout=PATIENCE_S) as answer:  # noqa: S310
        assert answer.status == 200


def serve(tmp_path, body: bytes | dict[str, bytes]):
    """Serve a body at every path of a loopback server, or bodies by path, until the process ends."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            found = body.get(self.path) if isinstance(body, dict) else body
            self.send_response(404 if found is None else 200)
            self.send_header("content-length", str(len(found or b"")))
            self.end_headers()
            self.wfile.write(found or b"")

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def a_snapshot(date: str) -> bytes:
    model = {"id": "brand-new", "name": "brand-new", "provider": "openai", "capabilities": "a"}
    return json.dumps({"date": date, "capabilities": {"a": {"reasoning": True}}, "models": [model]}).encode()


def a_wheel(rows: bytes, name: str = "lm_deluge/models/models.json") -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as wheel:
        wheel.writestr(name, rows)
    return packed.getvalue()


def test_the_release_of_a_mirror_may_have_relative_urls(home, tmp_path):
    release = json.dumps(
        {"urls": [{"url": "../x/lm_deluge-2.tar.gz"}, {"url": "../../y/lm_deluge-2-any.whl#sha256=0"}]}
    )
    server = serve(
        tmp_path, {"/pypi/json": release.encode(), "/y/lm_deluge-2-any.whl": a_wheel(a_snapshot("2999-01-01"))}
    )
    try:
        done = run("models", "update", "--source", f"http://127.0.0.1:{server.server_port}/pypi/json", home=home)
    finally:
        server.shutdown()
        server.server_close()
    assert done.returncode == 0, done.stderr
    assert b"1 models of 2999-01-01" in done.stderr


@pytest.mark.parametrize("pack", [lambda rows: rows, a_wheel], ids=["json", "wheel"])
def test_newer_models_are_fetched_when_asked(home, tmp_path, pack):
    server = serve(tmp_path, pack(a_snapshot("2999-01-01")))
    try:
        done = run("models", "update", "--source", f"http://127.0.0.1:{server.server_port}/x", home=home)
    finally:
        server.shutdown()
        server.server_close()
    assert done.returncode == 0, done.stderr
    assert b"1 models of 2999-01-01" in done.stderr
    (row,) = json.loads(run("models", "--json", "--search", "brand", home=home).stdout)
    assert row["id"] == "brand-new"
    assert row["capabilities"]["reasoning"] is True


@pytest.mark.parametrize(
    ("body", "code", "message"),
    [
        (a_snapshot("2001-01-01"), 0, b"are the newest"),
        (b"<html>", 2, b"has no models in the format of this version"),
        (b'{"urls":[]}', 2, b"has no models in the format of this version"),
        (a_wheel(b"", "lm_deluge/models.py"), 2, b"is older than this one"),
        (a_wheel(b"{}"), 2, b"has no models in the format of this version"),
        (
            b'{"date":"2999-01-01","capabilities":{},"models":[{"id":"x","name":"x","provider":"openai","capabilities":"b"}]}',
            2,
            b"has no models in the format of this version",
        ),
    ],
)
def test_what_is_no_newer_snapshot_changes_nothing(home, tmp_path, body, code, message):
    server = serve(tmp_path, body)
    try:
        done = run("models", "update", "--source", f"http://127.0.0.1:{server.server_port}/x", home=home)
    finally:
        server.shutdown()
        server.server_close()
    assert (done.returncode, message in b" ".join(done.stderr.split())) == (code, True), done.stderr
    assert not (home / ".config" / "lm_deluge" / "models.json").exists()


def test_models_are_fetched_over_https_only(home):
    done = run("models", "update", "--source", "http://example.invalid/models.json", home=home)
    assert done.returncode == 2
    assert b"https://" in done.stderr


@pytest.mark.parametrize("content", [b"{", a_snapshot("2001-01-01")], ids=["damaged", "older"])
def test_a_fetched_file_that_is_older_or_damaged_is_passed_over(home, content):
    folder = home / ".config" / "lm_deluge"
    folder.mkdir(parents=True)
    (folder / "models.json").write_bytes(content)
    assert json.loads(run("models", "--json", "--search", "gpt-6.2-sol", home=home).stdout)
