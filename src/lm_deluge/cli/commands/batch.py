"""`deluge batch`: a file of prompts, a file of answers, and a journal by which it survives every end."""

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
    "concurrency": ("max_concurrent_requests", "Requests under way at once. [200]"),
}
_RESCUES = ("on_break", "hedge_after", "min_tokens_per_second")
_EPILOG = (
    "Exit codes: 0 every line is answered; 1 some lines failed (OUT says which), or the journal or OUT could not be "
    "written; 2 wrong use or configuration, nothing was sent; 130 Ctrl-C, 143 SIGTERM: start the same command again."
)


def _limit_options(command: Any) -> Any:
    for name, (_, text) in reversed(_LIMITS.items()):
        kind = click.INT if name == "concurrency" else click.FLOAT
        command = click.option(f"--limit-{name.replace('_', '-')}", type=kind, metavar="COUNT", help=text)(command)
    return command


def _check_rescues(options: dict[str, Any]) -> None:
    said = [name for name in _RESCUES if options[name] is not None]
    if said and options["provider_batch"]:
        raise ConfigurationError(
            f"--{said[0].replace('_', '-')} is for lines that are asked one by one",
            hint="The provider's batch API looks after its own; leave out one of the two.",
        )


def _patience(text: str) -> float | str:
    """Return `--hedge-after` as the client takes it: seconds, or a percentile, which it judges itself."""
    try:
        return float(text)
    except ValueError:
        return text


@click.command(epilog=_EPILOG)
@click.argument("source", metavar="IN", type=click.Path(path_type=Path))
@click.argument("target", metavar="OUT", type=click.Path(path_type=Path))
@batch_call_options
@_limit_options
@click.option("--max-attempts", type=int, metavar="COUNT", help="Requests per line at most, over all runs. [5]")
@click.option(
    "--on-break",
    type=click.Choice(["restart", "continue", "raise"]),
    help="An answer that breaks off begins anew, goes on where it broke, or fails its line. [restart]",
)
@click.option(
    "--hedge-after",
    type=_patience,
    metavar="SECONDS",
    help="Ask a second time, beside the first, where nothing has come for so long; p95: longer than usual.",
)
@click.option(
    "--min-tokens-per-second",
    type=float,
    metavar="RATE",
    help="Give an attempt up that is slower, unless it is the last.",
)
@click.option(
    "--max-cost", type=float, metavar="DOLLARS", help="What a run may cost; lines left over are for the next run."
)
@click.option("--retry-failed", is_flag=True, help="Ask lines again that failed for good in an earlier run.")
@click.option("--ask-duplicates-once", is_flag=True, help="Ask identical lines once; each gets the answer.")
@click.option(
    "--provider-batch",
    is_flag=True,
    help="Hand the lines over to the provider's own batch API: within a day, at half the price.",
)
@click.option("--overwrite", is_flag=True, help="Replace an OUT that is there and is not of this batch.")
@click.option("--salvage", is_flag=True, help="Go on with a damaged journal: the damage is moved to a file beside it.")
@click.option("--remove-journal", is_flag=True, help="Remove the journal once every line is answered.")
@click.option(
    "--report", "report_path", metavar="FILE", type=click.Path(path_type=Path), help="Write a report as JSON."
)
@click.option(
    "--progress",
    type=click.Choice(["rich", "tqdm", "plain", "none"]),
    default="rich",
    help="How the batch is shown on stderr. [rich]",
)
def batch(source: Path, target: Path, **options: Any) -> int:
    """Answer every line of IN; write the answers to OUT, in the same order.

    IN is JSON lines: a text, {"id", "prompt"}, {"id", "messages"} or a request of OpenAI's Batch API; or a .csv or
    .parquet table with such columns. OUT is JSON lines or such a table too, and is written when all is done.

    Until then everything is in OUT.journal. Whatever ends the batch, the same command goes on where it was: what is
    done is not asked again. Requests that were in flight are, and are named: they may be billed twice.
    """
    from lm_deluge.cli.batch_job import BatchJob, check_paths, options_that_shape, run_job
    from lm_deluge.dispatch.batch.survey import look_through

    _check_rescues(options)
    settings = CommandOptions.from_options(options)
    limits = {field: options[f"limit_{name}"] for name, (field, _) in _LIMITS.items()}
    more = {name: options[name] for name in ("max_attempts", "max_cost", *_RESCUES)} | limits
    client, notice = build_client(settings, **{name: value for name, value in more.items() if value is not None})
    job = BatchJob(
        source=source,
        target=target,
        client=client,
        system=settings.system,
        is_simulated=[model.provider for model in client.models] == ["simulator"],
        **{name: options[name] for name in BatchJob.OPTIONS},
    )
    check_paths(job)
    if notice:
        report(notice)
    survey = look_through(source, options_that_shape(job), find_duplicates=job.ask_duplicates_once)
    return asyncio.run(run_job(job, survey))
