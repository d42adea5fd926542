"""`deluge batch`: from a file of prompts to a file of answers, with a journal that survives crashes."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import click

from lm_deluge.cli.options import CommandOptions, batch_call_options, build_client
from lm_deluge.cli.render.terminal import report
from lm_deluge.errors import ConfigurationError

_LIMITS = {
    "requests": ("max_requests_per_minute", "Requests per minute."),
    "tokens": ("max_tokens_per_minute", "Tokens per minute, input and output together."),
    "input_tokens": ("max_input_tokens_per_minute", "Input tokens per minute."),
    "output_tokens": ("max_output_tokens_per_minute", "Output tokens per minute."),
    "concurrency": ("max_concurrent_requests", "Concurrent requests. [200]"),
}
_RECOVERY_OPTIONS = ("on_break", "hedge_after", "min_tokens_per_second")
_EPILOG = (
    "Exit codes: 0 every line is answered (or skipped with --skip-bad); 1 some lines failed (OUT has their errors), or "
    "the journal or OUT could not be written; 2 wrong use or configuration, or a line that cannot be read: no request "
    "was sent; 130 Ctrl-C, 143 SIGTERM: start the same command again to continue."
)


def _limit_options(command: Any) -> Any:
    for name, (_, text) in reversed(_LIMITS.items()):
        kind = click.INT if name == "concurrency" else click.FLOAT
        command = click.option(f"--limit-{name.replace('_', '-')}", type=kind, metavar="COUNT", help=text)(command)
    return command


def _check_options(options: dict[str, Any]) -> None:
    if options["engine"] == "ray":
        from lm_deluge.cli.batch.batch_ray import REFUSED

        if refused := next((name for name in REFUSED if options[name]), None):
            raise ConfigurationError(f"{REFUSED[refused]} cannot be used together with --engine ray")
    if options["workers"] is not None and options["workers"] < 1:
        raise ConfigurationError(f"--workers {options['workers']} is not a number of processes", hint="Pass 1 or more.")
    if options["column"] is not None and options["is_text"]:
        raise ConfigurationError("--column cannot be used together with --lines", hint="Remove one of the two options.")
    if options["max_output_retries"] and options["provider_batch"]:
        raise ConfigurationError(
            "--max-output-retries cannot be used together with --provider-batch",
            hint="Start the same command again with --retry-failed; or remove one of the two options.",
        )
    if (options["workers"] or 1) > 1 and options["provider_batch"]:
        raise ConfigurationError(
            "--workers cannot be used together with --provider-batch",
            hint="The provider answers the lines by itself; remove one of the two options.",
        )
    given = [name for name in _RECOVERY_OPTIONS if options[name] is not None]
    if given and options["provider_batch"]:
        raise ConfigurationError(
            f"--{given[0].replace('_', '-')} cannot be used together with --provider-batch",
            hint="The provider's batch API handles its requests by itself; remove one of the two options.",
        )


def _run_ray(source: Path, target: Path, client: Any, system: str | None, options: dict[str, Any]) -> int:
    from lm_deluge.cli.batch.batch_ray import RayJob, run_ray

    ask = {
        "prompt": options["column"],
        "system": system,
        "output": options["schema"],
        "max_output_retries": options["max_output_retries"],
    }
    shared = {name: options[name] for name in ("overwrite", "retry_failed", "progress", "report_path")}
    return run_ray(
        RayJob(
            source=source.resolve(),  # actors have working folders of their own
            target=target.resolve(),
            client=client,
            ask=ask,
            actors=options["workers"] or 2,
            **shared,
        )
    )


def _delay(text: str) -> float | str:
    """Convert `--hedge-after` for the client: seconds become a number, a percentile stays a text."""
    try:
        return float(text)
    except ValueError:
        return text


@click.command(epilog=_EPILOG)
@click.argument("source", metavar="IN", type=click.Path(path_type=Path))
@click.argument("target", metavar="OUT", type=click.Path(path_type=Path))
@batch_call_options
@click.option(
    "--column",
    metavar="NAME",
    help="The column of a table, or the field of JSON lines, that has the prompts. [prompt, messages or body]",
)
@click.option("--lines", "is_text", is_flag=True, help="IN is plain text, and each of its lines is a prompt.")
@click.option("--skip-bad", is_flag=True, help="Leave out lines that cannot be read; they are listed at the end.")
@_limit_options
@click.option(
    "--limiter",
    metavar="URL",
    help="A Redis server, redis://HOST:PORT/0: all processes that name it share the limits.",
)
@click.option("--max-attempts", type=int, metavar="COUNT", help="Maximum of requests per line, over all runs. [5]")
@click.option(
    "--on-break",
    type=click.Choice(["restart", "continue", "raise"]),
    help="When an answer breaks off: send the request again, continue the answer, or fail the line. [restart]",
)
@click.option(
    "--hedge-after",
    type=_delay,
    metavar="SECONDS",
    help="Send a second request if no answer starts within this time, or p95: within the time that 95% of them need.",
)
@click.option(
    "--min-tokens-per-second",
    type=float,
    metavar="RATE",
    help="Cancel attempts that are slower, except the last attempt.",
)
@click.option(
    "--collect",
    type=click.Choice(["stream", "plain", "auto"]),
    help="Request answers as streams, or as plain documents for less CPU time: all, or those expected soon. [stream]",
)
@click.option(
    "--max-cost",
    type=float,
    metavar="DOLLARS",
    help="Maximum cost of a run; the remaining lines are left to the next run.",
)
@click.option(
    "--schema",
    metavar="FILE",
    help="A JSON schema that each answer must follow, else its line fails: a file, or '{...}' itself.",
)
@click.option(
    "--max-output-retries",
    type=int,
    default=0,
    metavar="COUNT",
    help="Ask again, with the error, after an answer that does not follow the schema. [0]",
)
@click.option("--retry-failed", is_flag=True, help="Send lines again that failed in an earlier run.")
@click.option("--ask-duplicates-once", is_flag=True, help="Send identical lines only once; all of them get the answer.")
@click.option(
    "--provider-batch",
    is_flag=True,
    help="Use the provider's own batch API: answers within a day, at half the price.",
)
@click.option(
    "--workers",
    type=int,
    metavar="COUNT",
    help="Processes that send requests, for more than one core; limits apply to all of them together. [1; with "
    "--engine ray 2]",
)
@click.option(
    "--engine",
    type=click.Choice(["local", "ray"]),
    default="local",
    help="ray: IN is a .parquet file or a folder of them, OUT a folder. A Ray cluster on this machine, or at "
    "$RAY_ADDRESS, answers the rows. [local]",
)
@click.option("--overwrite", is_flag=True, help="Start again: replace an existing OUT, and its journal.")
@click.option(
    "--salvage", is_flag=True, help="Continue with a damaged journal; the damaged part is moved to a file beside it."
)
@click.option(
    "--journal", "journal_path", metavar="FILE", type=click.Path(path_type=Path), help="The journal. [OUT.journal]"
)
@click.option("--remove-journal", is_flag=True, help="Remove the journal after every line is answered.")
@click.option(
    "--report", "report_path", metavar="FILE", type=click.Path(path_type=Path), help="Write a report as JSON."
)
@click.option(
    "--progress",
    type=click.Choice(["rich", "tqdm", "plain", "none"]),
    default="rich",
    help="Progress display on stderr. [rich]",
)
def batch(source: Path, target: Path, **options: Any) -> int:
    """Answer every line of IN and write the answers to OUT, in the same order.

    IN consists of JSON lines: a text, {"id", "prompt"}, {"id", "messages"} or a request of OpenAI's Batch API; or it
    is a .csv or .parquet table with such columns, whose other columns are carried to OUT. OUT is JSON lines or such a
    table too, and is written at the end. "-" is stdin or stdout.

    Until then all answers are in OUT.journal. After a crash or Ctrl-C the same command continues the batch: lines that
    are done are not sent again, even if IN was mended, extended or reordered. Requests that were in flight are sent
    again and listed, because they may be billed twice.
    """
    from lm_deluge.cli.batch.batch_files import check_bad_rows, journal_path_of, open_source, open_target
    from lm_deluge.cli.batch.batch_job import BatchJob, check_paths, fingerprint_options, run_job
    from lm_deluge.cli.prompt_input import read_schema
    from lm_deluge.dispatch.batch.input import RowFormat
    from lm_deluge.dispatch.batch.survey import look_through
    from lm_deluge.outputs.answer_type import answer_type

    _check_options(options)
    settings = CommandOptions.from_options(options)
    limits = {field: options[f"limit_{name}"] for name, (field, _) in _LIMITS.items()}
    more = {
        name: options[name] for name in ("max_attempts", "max_cost", "limiter", "collect", *_RECOVERY_OPTIONS)
    } | limits
    client, notice = build_client(settings, **{name: value for name, value in more.items() if value is not None})
    if options["schema"] is not None:
        options["schema"] = read_schema(options["schema"])
        answer_type(options["schema"])  # refuses one that no provider accepts
    if options["engine"] == "ray":
        return _run_ray(source, target, client, settings.system, options)
    options["workers"] = options["workers"] or 1
    shaping = fingerprint_options(
        client,
        system=settings.system,
        is_provider_batch=options["provider_batch"],
        schema=options["schema"],
    )
    output, file = open_target(target), open_source(source)
    job = BatchJob(
        source=file,
        target=output,
        journal_path=options["journal_path"] or journal_path_of(file, output, shaping),
        client=client,
        form=RowFormat(options["column"], options["is_text"]),
        system=settings.system,
        is_simulated=[model.provider for model in client.models] == ["simulator"],
        keeps_journal=output is not None or options["journal_path"] is not None,
        **{name: options[name] for name in BatchJob.OPTIONS},
    )
    check_paths(job)
    if notice:
        report(notice)
    survey = look_through(file, shaping, find_duplicates=job.ask_duplicates_once, form=job.form)
    check_bad_rows(survey, file, skips=options["skip_bad"])
    return asyncio.run(run_job(job, survey))
