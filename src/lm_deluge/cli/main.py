"""The command `deluge`. A subcommand is imported when it is used, so that help is quick."""

from __future__ import annotations

import importlib
import sys
from typing import Any, NoReturn

import click

from lm_deluge import __version__
from lm_deluge.cli.exits import EXIT_CODES, EndedError, run

__all__ = ["cli", "main"]

# Name, and what the list of commands says of it: `module:command` holds the rest.
_COMMANDS = {
    "stream": "Stream the answer to a prompt.",
    "chat": "Talk with a model.",
    "batch": "Answer every line of a file; go on after any crash.",
    "models": "List models with prices and limits.",
    "decode": "Show what is read from a recorded response body.",
    "simulate": "Serve made-up answers on this machine, with faults on demand.",
}

_EPILOG = "Exit codes: " + "; ".join(f"{code} {meaning}" for code, meaning in EXIT_CODES.items()) + "."


class _Commands(click.Group):
    """The subcommands, by name only."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order in which one meets them."""
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command, or return None where there is none of that name."""
        if cmd_name not in _COMMANDS:
            return None
        module = importlib.import_module(f"lm_deluge.cli.commands.{cmd_name}")
        command: click.Command = getattr(module, cmd_name)
        return command

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; Ctrl-C and a reader that has gone are ours to answer."""
        try:
            return super().invoke(ctx)
        except (KeyboardInterrupt, BrokenPipeError) as error:
            raise EndedError(error) from error

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list without importing what is in it."""
        with formatter.section("Commands"):
            formatter.write_dl(list(_COMMANDS.items()))


@click.group(cls=_Commands, epilog=_EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, "-V", "--version", prog_name="deluge", message="%(prog)s %(version)s")
def cli() -> None:
    """Stream answers of language models.

    Keys come from the environment or from a file .env in the working folder, OPENAI_API_KEY for example. Without a
    key a built-in simulator answers, and says so.
    """
    from lm_deluge.cli.environment import load_dotenv_here, raise_file_limit

    raise_file_limit()
    problem = load_dotenv_here()
    if problem:
        click.echo(f"deluge: {problem}", err=True)


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run the command line and end the process with the code that says how it went."""
    sys.exit(run(lambda: cli.main(arguments, prog_name="deluge", standalone_mode=False)))


if __name__ == "__main__":
    main()
