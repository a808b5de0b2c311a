"""The command `speech`: it finds the module of a subcommand, and loads that one alone.

A subcommand is a module with an `app` of its own, which takes its options and lists its exit codes.
To add one, add a line to `COMMANDS`.
"""

import sys
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from speech_tools import __version__
from speech_tools.command_line import INTERRUPTED
from speech_tools.terminal import survive_ascii

COMMANDS = {
    "demo": ("speech_tools.demo", "Run a whole pipeline here, and speak a recording into it."),
    "stream": ("speech_tools.stream.command", "Speak to a gateway until all of it is stored."),
    "check": ("speech_tools.check", "See whether a gateway can be spoken to, and why not."),
    "conformance": (
        "speech_tools.conformance.command",
        "Hold any deployment to the protocol, from outside.",
    ),
    "trace": ("speech_tools.trace.command", "Show every hop of an utterance, and its text."),
    "top": ("speech_tools.top.command", "Watch the metrics of gateways and recognisers, live."),
    "load": ("speech_tools.load.command", "Let many clients speak at once, and report on it."),
    "latency": ("speech_tools.latency.command", "Measure how long each hop of an utterance takes."),
    "bench": ("speech_tools.bench.command", "Measure what the gateway costs beside a bare server."),
    "capacity": ("speech_tools.capacity.command", "Compute what so many speakers need."),
    "models": ("speech_tools.models.command", "Get the recogniser's models, and check them."),
}
"""The module of each subcommand, and what it does, in the order of the help."""


class _Command(TyperCommand):
    """A subcommand that is not loaded: numpy alone costs a quarter of a second.

    The list of all subcommands and the completion of their names need no more than this.
    """

    def __init__(self, name: str, module: str, what: str) -> None:
        super().__init__(name, help=what)
        self._module = module

    def make_context(self, *arguments: Any, **more: Any) -> Any:  # noqa: ANN401 - typer's
        """Load the subcommand, and let it read its arguments."""
        loaded = typer.main.get_command(import_module(self._module).app)
        return loaded.make_context(*arguments, **more)


class _Commands(TyperGroup):
    """All subcommands, by the names of `COMMANDS`."""

    def list_commands(self, ctx: object) -> list[str]:  # noqa: ARG002 - typer's signature
        """Return the names of all subcommands."""
        return list(COMMANDS)

    def get_command(self, ctx: object, cmd_name: str) -> TyperCommand | None:  # noqa: ARG002
        """Return the subcommand of that name, or nothing where there is none."""
        return _Command(cmd_name, *COMMANDS[cmd_name]) if cmd_name in COMMANDS else None


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
