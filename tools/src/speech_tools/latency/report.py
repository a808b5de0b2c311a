"""The report of `speech latency`: figures of each hop, as a table and as JSON that reads back.

`latency.compare` sets two of them side by side. docs/latency.md explains every field.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

from pydantic import ConfigDict, TypeAdapter, ValidationError
from rich.table import Table

from speech_tools.latency.hops import END_TO_END, HOPS
from speech_tools.machine import Machine
from speech_tools.percentiles import percentiles
from speech_tools.terminal import json_text

SLOWEST = 3
_PARTS = (0.5, 0.9, 0.95, 0.99)


class ReportError(Exception):
    """A file is no report; the text is the one line for the user."""


@dataclass(frozen=True, slots=True)
class Figures:
    """How the waits at one hop are spread, in milliseconds. Nothing where it is not known."""

    min: float | None = None
    mean: float | None = None
    p50: float | None = None
    p90: float | None = None
    p95: float | None = None
    p99: float | None = None
    max: float | None = None

    @classmethod
    def of(cls, waits: Sequence[float]) -> "Figures":
        """Return them of at least one wait. All but the mean are among the waits."""
        p50, p90, p95, p99 = percentiles(waits, _PARTS)
        return cls(min(waits), round(fmean(waits), 1), p50, p90, p95, p99, max(waits))


FIGURES = tuple(field.name for field in fields(Figures))


@dataclass(frozen=True, slots=True)
class Settings:
    """What was measured.

    Attributes:
        stack: `embedded`, or `running` for one that was there.
        engine: What recognised, as far as it is known.
        speech: Where the samples were cut from: `samples`, or `file`.
        seconds: Length of each utterance.
        pace: `realtime` or `fast`.
        count: Utterances to measure.
        warm_up: Utterances before those.
        clients: How many spoke at once.
        limits: The gateway's, as it greets with them.
    """

    stack: str
    engine: str
    speech: str
    seconds: float
    pace: str
    count: int
    warm_up: int
    clients: int
    limits: Mapping[str, int | float]


@dataclass(frozen=True, slots=True)
class Slow:
    """One of the slowest utterances, for `speech trace`."""

    correlation_id: str
    end_to_end_ms: float


@dataclass(frozen=True, slots=True)
class Lost:
    """An utterance without a text, or without a receipt.

    Attributes:
        correlation_id: Nothing where the gateway never greeted.
        missing: The first point that it did not come to.
        why: For people.
    """

    correlation_id: str | None
    missing: str
    why: str

    def line(self) -> str:
        """Return it for people."""
        return f"lost: {self.correlation_id or 'no id'}: {self.missing} is missing: {self.why}"


@dataclass(frozen=True, slots=True)
class Report:
    """The result of one run.

    Attributes:
        format: Says what this is.
        measured_at: When it began, ISO 8601, UTC. Nothing where it is not known.
        note: What else a reader has to know.
        machine: What it ran on. Nothing where it is not known.
        settings: Likewise.
        measured: How many utterances the figures are of.
        hops: The figures in milliseconds, by the name of the hop.
        slowest: The slowest utterances.
        lost: Those without figures, the warm-up's included.
        load_average_after: Of the last minute of the run: what else the machine did.
    """

    format: Literal["speech-latency/1"]
    measured_at: str | None
    note: str
    machine: Machine | None
    settings: Settings | None
    measured: int
    hops: Mapping[str, Figures]
    slowest: tuple[Slow, ...] = ()
    lost: tuple[Lost, ...] = ()
    load_average_after: float | None = None

    __pydantic_config__ = ConfigDict(extra="forbid", allow_inf_nan=False)

    def json(self) -> str:
        """Return it as one JSON object."""
        return json_text(_ADAPTER.dump_python(self, mode="json"), indent=2) + "\n"


_ADAPTER = TypeAdapter(Report)


def read(file: Path) -> Report:
    """Read a report that `json` has made.

    Raises:
        ReportError: There is none in it.
    """
    try:
        report = _ADAPTER.validate_json(file.read_bytes())
    except OSError as error:
        raise ReportError(f"{file}: cannot be read: {error.strerror}") from None
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise ReportError(f"{file}: not a latency report: {where}: {first['msg']}") from None
    if not any(_is_known(report.hops.get(hop.name)) for hop in HOPS):
        raise ReportError(f"{file}: holds no figure of a hop")
    return report


def _is_known(found: Figures | None) -> bool:
    return found is not None and any(value is not None for value in astuple(found))


def figures(utterances: Iterable[Mapping[str, int]]) -> dict[str, Figures]:
    """Return the figures of each hop, given the waits of each utterance by hop."""
    every = list(utterances)
    return {hop.name: Figures.of([waits[hop.name] for waits in every]) for hop in HOPS if every}


def slowest(utterances: Mapping[str, Mapping[str, int]]) -> tuple[Slow, ...]:
    """Return the slowest utterances, given the waits of each by its correlation id."""
    slow = [Slow(name, waits[END_TO_END.name]) for name, waits in utterances.items()]
    return tuple(sorted(slow, key=lambda each: -each.end_to_end_ms)[:SLOWEST])


def table(report: Report) -> Table:
    """Return the figures for people."""
    made = Table("hop", "from", "to", title=f"{report.measured} utterances, in ms")
    for name in FIGURES:
        made.add_column(heading(name), justify="right")
    for hop in HOPS:
        if (found := report.hops.get(hop.name)) is not None:
            whole = "bold" if hop is END_TO_END else None
            made.add_row(hop.name, hop.begin, hop.end, *_cells(found), style=whole)
    return made


def heading(figure: str) -> str:
    """Return how people write the name of a figure."""
    return figure.upper() if figure.startswith("p") else figure


def _cells(found: Figures) -> Iterator[str]:
    return ("" if value is None else f"{round(value)}" for value in astuple(found))


def lines(report: Report) -> Iterator[str]:
    """Yield what was measured and on what, for people."""
    if report.note:
        yield f"note: {report.note}"
    if (was := report.settings) is not None:
        yield (
            f"{was.stack} pipeline, engine: {was.engine}; {was.count} utterances of "
            f"{was.seconds:g} s from {was.speech}, pace: {was.pace}, clients: {was.clients}, "
            f"after a warm-up of {was.warm_up}"
        )
        yield "limits: " + ", ".join(f"{name} {value:.10g}" for name, value in was.limits.items())
    if report.machine is not None:
        yield f"machine: {report.machine.line()}"
    if report.load_average_after is not None:
        yield f"load average after the run: {report.load_average_after:.2f}"
    for slow in report.slowest:
        yield f"slow: {slow.correlation_id}, {slow.end_to_end_ms:.0f} ms"


def circumstances(report: Report) -> dict[str, Any]:
    """Return what must be the same in two runs for their figures to mean the same."""
    told: dict[str, Any] = {}
    if report.settings is not None:
        told |= {each.name: getattr(report.settings, each.name) for each in fields(Settings)}
    if report.machine is not None:
        told |= {"processor": report.machine.processor, "cores": report.machine.cores}
    return told
