"""Measure how long utterances take, hop by hop, from the client's handshake to the stored text.

    uv run speech latency --embedded --count 100 --out DIR
    uv run speech latency --url ws://HOST:PORT/ws/audio --compare OLD.json

What is spoken is stored on the pipeline's topics. `docs/latency.md` explains the figures; `--help`
lists the exit codes.
"""

import importlib
import logging
import math
import re
import signal
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from speech_lib.errors import (
    BrokerUnavailable,
    ConfigError,
    RegistryUnavailable,
    SchemaNotFound,
    SchemaRefused,
    TopicMissing,
)

from speech_tools import client, environment
from speech_tools.audio import AudioError
from speech_tools.latency import compare as latency_compare
from speech_tools.latency import report as latency_report
from speech_tools.latency.compare import Rule
from speech_tools.latency.measure import Options, Pace, measured
from speech_tools.latency.report import Report, ReportError
from speech_tools.latency.result import Result
from speech_tools.latency.screen import say, show
from speech_tools.stack import StackError
from speech_tools.terminal import complain

DEFAULT_URL = "ws://localhost:8000/ws/audio"

EPILOG = """\
Exit codes:

0  all utterances came out as text; with --compare, nothing has become too slow

1  utterances were lost, each named with the hop that is missing; or figures are beyond the
threshold, each named

2  wrong usage: the options, a file, or utterances longer than the gateway takes; or the gateway,
the broker or the schema registry cannot be reached

The variables KAFKA_SECURITY_PROTOCOL, KAFKA_SASL_… and KAFKA_SSL_CA_LOCATION say how to reach the
broker; TOPIC_AUDIO_INGRESS, TOPIC_ASR_TEXT and TOPIC_DEAD_LETTER where the records come.
"""


NO_PLOTS = "the picture needs matplotlib: `uv run --group plots` installs it"


class Exit(IntEnum):
    """How the run ended."""

    FINE = 0
    TOO_SLOW_OR_LOST = 1
    USAGE = 2


@dataclass(frozen=True, slots=True)
class Output:
    """What becomes of the report: a folder for it, and one to compare it with."""

    folder: Path | None
    compare: Path | None
    rule: Rule


UNUSABLE = (AudioError, ReportError, OSError, ImportError, ConfigError, client.StreamError)
UNREACHABLE = (
    *(BrokerUnavailable, TopicMissing, RegistryUnavailable, SchemaNotFound, SchemaRefused),
    StackError,
)


def run(options: Options, output: Output) -> Exit:
    """Measure, print, write, compare, and return the exit code."""
    # What goes wrong is said in the one line below; librdkafka's own would stand beside it.
    logging.getLogger("speech_lib").addHandler(logging.NullHandler())
    try:
        old = latency_report.read(output.compare) if output.compare else None
        if output.folder is not None:
            _prepare(output.folder)
        report, found = measured(options)
        show(report)
        if output.folder is not None:
            write(output.folder, report, found, old)
    except (*UNUSABLE, *UNREACHABLE) as error:
        return _complain(Exit.USAGE, str(error))
    beyond = judged(old, report, output.rule) if old else []
    for line in [*(each.line() for each in report.lost), *beyond]:
        _complain(Exit.TOO_SLOW_OR_LOST, line)
    return Exit.TOO_SLOW_OR_LOST if report.lost or beyond else Exit.FINE


def _prepare(folder: Path) -> None:
    """Fail before the run, not after it, where its result has no place or cannot be drawn."""
    try:
        importlib.import_module("matplotlib")  # takes its time, and only pictures need it
    except ImportError:
        raise ImportError(NO_PLOTS) from None
    folder.mkdir(parents=True, exist_ok=True)


def write(folder: Path, report: Report, found: Result, old: Report | None) -> None:
    """Write the report, and its picture if there is anything to draw."""
    (folder / "latency.json").write_text(report.json(), encoding="utf-8")
    if found.waits:
        from speech_tools.latency import chart as latency_chart  # noqa: PLC0415  # takes its time to load

        latency_chart.draw(folder / "latency.png", report, list(found.waits.values()), old)


def judged(old: Report, new: Report, rule: Rule) -> list[str]:
    """Print what has changed, and return a line for each figure that has become too slow."""
    changes = latency_compare.changes(old, new)
    for line in latency_compare.notes(old, new):
        say(line)
    say(latency_compare.table(changes, rule))
    return [f"too slow: {each.line()}" for each in changes if rule.is_beyond(each)]


def _complain(code: Exit, line: str) -> Exit:
    complain("latency", line)
    return code


def _interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt


def _number(value: float) -> float:
    if math.isnan(value):  # no bound holds it
        raise typer.BadParameter("nan is not a number")
    return value


def _percent(text: str) -> float:
    """Return what `10%` means as a part."""
    if not re.fullmatch(r"[0-9]{1,4}(\.[0-9]{1,3})?%", text):
        raise typer.BadParameter(f"expected a percentage such as 10%, got {text!r}")
    return float(text.removesuffix("%")) / 100


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command(epilog=EPILOG)
def main(  # noqa: PLR0913, PLR0917 - each is an option
    count: Annotated[int, typer.Option(min=1, max=100_000, help="utterances to measure")] = 100,
    warm_up: Annotated[
        int, typer.Option(min=0, max=1000, help="utterances before those, which do not count")
    ] = 5,
    seconds: Annotated[
        float, typer.Option(min=0.1, max=60, callback=_number, help="how long each lasts")
    ] = 2,
    audio: Annotated[
        Path | None,
        typer.Option(help="recording to cut them from, over and over", show_default="samples/"),
    ] = None,
    pace: Annotated[
        Pace, typer.Option(help="as it is spoken, or as fast as the gateway permits")
    ] = Pace.REALTIME,
    clients: Annotated[int, typer.Option(min=1, max=100, help="how many speak at once")] = 1,
    patience: Annotated[
        float,
        typer.Option(
            min=1, max=600, callback=_number, help="seconds from the receipt until a text is lost"
        ),
    ] = 30,
    embedded: Annotated[  # noqa: FBT002 - how typer declares a switch
        bool, typer.Option("--embedded", help="start a pipeline here, and measure that one")
    ] = False,
    url: Annotated[str, typer.Option(envvar="GATEWAY_URL", help="the gateway")] = DEFAULT_URL,
    bootstrap_servers: Annotated[
        str, typer.Option(envvar="KAFKA_BOOTSTRAP_SERVERS", help="the Kafka brokers")
    ] = environment.DEFAULT_SERVERS,
    registry: Annotated[
        str, typer.Option(envvar="SCHEMA_REGISTRY_URL", help="the schema registry")
    ] = environment.DEFAULT_REGISTRY,
    engine: Annotated[
        str, typer.Option(help="what recognises, for the report: a running pipeline does not tell")
    ] = "not told",
    note: Annotated[str, typer.Option(help="what else to put into the report")] = "",
    out: Annotated[
        Path | None,
        typer.Option(file_okay=False, help="folder for latency.json and latency.png"),
    ] = None,
    compare: Annotated[
        Path | None, typer.Option(dir_okay=False, help="latency.json of an earlier run")
    ] = None,
    threshold: Annotated[
        float,
        typer.Option(parser=_percent, metavar="PERCENT", help="how much slower is too slow"),
    ] = "10%",  # type: ignore[assignment]  # the parser reads the default, too
    floor: Annotated[
        float,
        typer.Option(min=0, max=60_000, callback=_number, help="ms that never are too slow"),
    ] = 20,
) -> None:
    """Measure how long utterances take through a pipeline, hop by hop."""
    options = Options(
        count=count,
        warm_up=warm_up,
        seconds=seconds,
        pace=pace,
        clients=clients,
        patience_seconds=patience,
        audio=audio,
        embedded=embedded,
        url=url,
        servers=bootstrap_servers,
        registry=registry,
        engine=engine,
        note=note,
    )
    signal.signal(signal.SIGTERM, _interrupt)  # what was started is stopped
    raise typer.Exit(run(options, Output(out, compare, Rule(threshold, floor))))
