"""The command `speech`: finds the module of a subcommand, and loads that one alone.

A subcommand is a module with an `app` of its own, which takes its options and says its exit codes.
To add one, add a line to `COMMANDS`.
"""

import sys
from importlib import import_module
from typing import Annotated

import typer
from typer.core import TyperCommand, TyperGroup

from speech_tools import __version__
from speech_tools.terminal import survive_ascii

COMMANDS = {
    "demo": "speech_tools.demo",
    "stream": "speech_tools.stream",
    "trace": "speech_tools.trace.command",
    "top": "speech_tools.top.command",
    "load": "speech_tools.load.command",
    "latency": "speech_tools.latency.command",
}
"""The module of each subcommand, in the order of the help."""

INTERRUPTED = 130
"""What a shell expects of a program that Ctrl-C has ended."""


class _Commands(TyperGroup):
    """Loads a subcommand when it is asked for: numpy alone costs a quarter of a second."""

    def list_commands(self, ctx: object) -> list[str]:  # noqa: ARG002 - typer's signature
        """Return the names of all subcommands."""
        return list(COMMANDS)

    def get_command(self, ctx: object, cmd_name: str) -> TyperCommand | None:  # noqa: ARG002
        """Return the subcommand of that name, or nothing where there is none."""
        if cmd_name not in COMMANDS:
            return None
        command = typer.main.get_command(import_module(COMMANDS[cmd_name]).app)
        assert isinstance(command, TyperCommand)  # noqa: S101 - an `app` with one function is one
        command.name = cmd_name
        return command


app = typer.Typer(cls=_Commands, no_args_is_help=True, pretty_exceptions_enable=False)


def _version(wanted: bool) -> None:  # noqa: FBT001 - typer's signature
    if wanted:
        typer.echo(f"speech {__version__}")
        raise typer.Exit


@app.callback()
def speech(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="show it and end")
    ] = False,
) -> None:
    """Speak to a pipeline, follow what was said, and measure how it does."""


def main() -> None:
    """Run the command; the process ends with the exit code that the subcommand documents."""
    survive_ascii()  # people say more
    try:
        app(prog_name="speech")
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
