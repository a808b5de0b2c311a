"""What the subcommands share on the command line: options, exit codes, complaints and signals."""

import logging
import math
import signal
import sys
from collections.abc import Mapping
from importlib import import_module
from typing import Annotated, NoReturn, TypeVar

import typer

from speech_tools.terminal import complain

Code = TypeVar("Code", bound=int)

NO_PLOTS = "the picture needs matplotlib: in a checkout, `uv sync --all-packages` installs it"

INTERRUPTED = 130
"""What a shell expects of a program that Ctrl-C has ended."""
TERMINATED = 143
"""Likewise of one that SIGTERM has ended."""

DEFAULT_URL = "ws://localhost:8000/ws/audio"
DEFAULT_OPS = "http://localhost:8001"
DEFAULT_SERVERS = "localhost:29092"
DEFAULT_REGISTRY = "http://localhost:8081"

GatewayUrl = Annotated[str, typer.Option(envvar="GATEWAY_URL", help="the gateway")]
ApiKey = Annotated[
    str | None,
    typer.Option(envvar="SPEECH_API_KEY", help="what an edge before the gateway asks for"),
]
Servers = Annotated[str, typer.Option(envvar="KAFKA_BOOTSTRAP_SERVERS", help="the Kafka brokers")]
RegistryUrl = Annotated[str, typer.Option(envvar="SCHEMA_REGISTRY_URL", help="the schema registry")]


def make_app() -> typer.Typer:
    """Return an empty subcommand. Completion belongs to `speech` itself."""
    return typer.Typer(add_completion=False, pretty_exceptions_enable=False)


def exit_codes(meanings: Mapping[int, str], *more: str) -> str:
    """Return the end of a help text: the exit codes with what they mean, and further paragraphs."""
    codes = (f"{int(code)}  {meaning}" for code, meaning in meanings.items())
    return "\n\n".join(("Exit codes:", *codes, *more))


def fail(command: str, code: Code, line: str) -> Code:
    """Say in one line on stderr what went wrong, and return the exit code."""
    complain(command, line)
    return code


def number(value: float) -> float:
    """Refuse NaN, which no bound of an option refuses."""
    if math.isnan(value):
        raise typer.BadParameter("nan is not a number")
    return value


def require_plots() -> None:
    """Return where pictures can be drawn. It takes the time that matplotlib takes to load.

    Raises:
        ImportError: matplotlib is an extra, and not installed.
    """
    try:
        import_module("matplotlib")
    except ImportError:
        raise ImportError(NO_PLOTS) from None


def end_on_sigterm() -> None:
    """Let SIGTERM end this process in order, so that what it has started is stopped."""

    def end(*_: object) -> NoReturn:
        sys.exit(TERMINATED)

    signal.signal(signal.SIGTERM, end)


def silence_library() -> None:
    """Keep librdkafka's own lines from the terminal: each command says what went wrong itself."""
    logging.getLogger("speech_lib").addHandler(logging.NullHandler())
