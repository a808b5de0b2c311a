"""`speech latency`: measure how long each hop of an utterance takes, from handshake to stored text.

What is spoken is stored on the pipeline's topics. docs/latency.md explains the figures; `--help`
lists the exit codes.
"""

from dataclasses import dataclass
from enum import IntEnum
from functools import partial
from pathlib import Path

import typer
from speech_lib.errors import (
    BrokerUnavailable,
    ConfigError,
    RegistryUnavailable,
    SchemaNotFound,
    SchemaRefused,
    TopicMissing,
)

from speech_tools.command_line import (
    DEFAULT_REGISTRY,
    DEFAULT_SERVERS,
    DEFAULT_URL,
    GatewayUrl,
    RegistryUrl,
    Servers,
    end_on_sigterm,
    exit_codes,
    fail,
    make_app,
    require_plots,
    silence_library,
)
from speech_tools.environment import KAFKA_VARIABLES
from speech_tools.latency import compare as latency_compare
from speech_tools.latency import options
from speech_tools.latency import report as latency_report
from speech_tools.latency.compare import Rule
from speech_tools.latency.measure import measured
from speech_tools.latency.options import Options, Pace, What, Where
from speech_tools.latency.report import Report, ReportError
from speech_tools.latency.result import Result
from speech_tools.latency.screen import say, show
from speech_tools.protocol import client
from speech_tools.protocol.audio import AudioError
from speech_tools.stack import StackError


class Exit(IntEnum):
    """How the run ended."""

    FINE = 0
    TOO_SLOW_OR_LOST = 1
    USAGE = 2


EPILOG = exit_codes(
    {
        Exit.FINE: "all utterances came out as text; with --compare, nothing has become too slow",
        Exit.TOO_SLOW_OR_LOST: "utterances were lost, each named with the hop that is missing; or "
        "figures are beyond the threshold, each named",
        Exit.USAGE: "wrong usage: the options, a file, or utterances longer than the gateway "
        "takes; or the gateway, the broker or the schema registry cannot be reached",
    },
    f"{KAFKA_VARIABLES} TOPIC_AUDIO_INGRESS, TOPIC_ASR_TEXT and TOPIC_DEAD_LETTER say where the "
    "records come.",
)

_complain = partial(fail, "latency")


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


def run(wanted: Options, output: Output) -> Exit:
    """Measure, print, write, compare, and return the exit code."""
    silence_library()
    try:
        old = latency_report.read(output.compare) if output.compare else None
        if output.folder is not None:
            _prepare(output.folder)
        report, found = measured(wanted)
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
    require_plots()
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


app = make_app()


@app.command(epilog=EPILOG)
def main(  # noqa: PLR0913, PLR0917 - each is an option
    count: options.Count = 100,
    warm_up: options.WarmUp = 5,
    seconds: options.Seconds = 2,
    audio: options.Audio = None,
    pace: options.PaceOption = Pace.REALTIME,
    clients: options.Clients = 1,
    patience: options.Patience = 30,
    embedded: options.Embedded = False,  # noqa: FBT002 - how typer declares a switch
    url: GatewayUrl = DEFAULT_URL,
    bootstrap_servers: Servers = DEFAULT_SERVERS,
    registry: RegistryUrl = DEFAULT_REGISTRY,
    engine: options.Engine = "not told",
    note: options.Note = "",
    out: options.Out = None,
    compare: options.Compare = None,
    threshold: options.Threshold = "10%",  # type: ignore[assignment]  # the parser reads it too
    floor: options.Floor = 20,
) -> None:
    """Measure how long each hop of an utterance takes.

    It speaks utterances to a pipeline, where they are stored, and follows each one to its text.
    """
    end_on_sigterm()  # what was started is stopped
    what = What(count, warm_up, seconds, audio, pace, clients, patience)
    where = Where(embedded, url, bootstrap_servers, registry, engine)
    rule = Rule(threshold, floor)
    raise typer.Exit(run(Options(what, where, note), Output(out, compare, rule)))
