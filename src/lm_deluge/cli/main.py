"""The command `deluge`. Subcommands are imported when they are used, to keep `deluge --help` fast."""

from __future__ import annotations

import importlib
import sys
from typing import Any, NoReturn

import click

from lm_deluge import __version__
from lm_deluge.cli.exits import EXIT_CODES, EndedError, run
from lm_deluge.cli.render.narrow_help import fit_help

__all__ = ["cli", "main"]

# The names and their help texts. The command itself is in the module of the same name.
_COMMANDS = {
    "stream": "Stream the answer to a prompt.",
    "chat": "Chat with a model.",
    "web": "Chat with models in the browser.",
    "batch": "Answer every line of a file; resume after a crash.",
    "serve": "Serve models to other programs: a gateway with keys and budgets.",
    "keys": "Create, list and revoke the keys of the gateway.",
    "spend": "Show what the keys of the gateway have spent.",
    "models": "List models with prices and limits.",
    "decode": "Show the content of a recorded response body.",
    "simulate": "Serve generated answers on this machine, with faults on request.",
}

_EPILOG = "Exit codes: " + "; ".join(f"{code} {meaning}" for code, meaning in EXIT_CODES.items()) + "."


# Similarity (difflib) from which on a single word is a mistyped command and no prompt: "strem", "chats", "modles".
_TYPO = 0.75


class _Commands(click.Group):
    """The subcommands, imported on first use. Arguments without a subcommand are those of `stream`."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """Return the context; help texts fit the terminal."""
        extra.setdefault("terminal_width", fit_help())
        return super().make_context(info_name, args, parent, **extra)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put `stream` before a prompt.

        Raises:
            click.UsageError: The first argument is similar to the name of a command.
        """
        own = {name for param in self.get_params(ctx) for name in param.opts}
        if args[:1] == ["help"]:
            args = ["--help", *args[1:]]
        elif args and args[0] not in own and args[0] not in _COMMANDS:
            if not ctx.resilient_parsing:
                _refuse_typo(args[0])
            args = ["stream", *args]
        return super().parse_args(ctx, args)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order of the help text."""
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return a command, or return None if no command has this name."""
        if cmd_name not in _COMMANDS:
            return None
        module = importlib.import_module(f"lm_deluge.cli.commands.{cmd_name}")
        command: click.Command = getattr(module, cmd_name)
        return command

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command, and hide Ctrl-C and broken pipes from click, which would choose the exit code."""
        try:
            return super().invoke(ctx)
        except (KeyboardInterrupt, BrokenPipeError) as error:
            raise EndedError(error) from error

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(_COMMANDS.items()))


def _refuse_typo(word: str) -> None:
    if " " in word or word.startswith("-"):
        return
    from difflib import get_close_matches

    near = get_close_matches(word.lower(), _COMMANDS, n=1, cutoff=_TYPO)
    if near:
        raise click.UsageError(
            f"There is no command {word!r}. Did you mean {near[0]}? As a prompt: deluge stream {word}"
        )


@click.group(cls=_Commands, epilog=_EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, "-V", "--version", prog_name="deluge", message="%(prog)s %(version)s")
def cli() -> None:
    """Stream answers of language models: deluge "a prompt" is short for deluge stream "a prompt".

    Keys are read from the environment or from a file .env in the working folder, for example OPENAI_API_KEY. On a
    terminal a built-in simulator answers without a key, and a notice states it.
    """
    from lm_deluge.cli.environment import load_dotenv_here, raise_file_limit

    raise_file_limit()
    problem = load_dotenv_here()
    if problem:
        click.echo(f"deluge: {problem}", err=True)


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run the command line and exit with its exit code.

    Args:
        arguments: The arguments after the program's name; None for those of this process.
    """
    # On Windows click would replace "*", "~" and "%NAME%" in arguments, also in prompts.
    sys.exit(run(lambda: cli.main(arguments, "deluge", standalone_mode=False, windows_expand_args=False)))


if __name__ == "__main__":
    main()
