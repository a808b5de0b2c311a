"""What a measurement found: medians with spread, and ratios to the bare server. Pure."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from statistics import median

from rich import box
from rich.table import Table
from speech_lib.events import BYTES_PER_SECOND

from speech_tools.machine import Machine
from speech_tools.percentiles import percentiles
from speech_tools.terminal import json_text

BASE = "bare asyncio"
"""The server that ratios are taken to."""

CPU, LOOP = "ms/MB", "loop ms/MB"
"""Processor time for each 1,000,000 bytes of audio: of the process, and of the loop's thread."""
TIMES_BARE, LOOP_TIMES_BARE = "times bare", "loop times bare"
"""The same, divided by the processor time of the whole bare server's process in that round."""
CORE = "core %"
"""Percent of one core that the live streams take: CPU per byte, times their bytes a second."""
P50, P99, LAG = "P50 ms", "P99 ms", "lag P99 ms"


@dataclass(frozen=True, slots=True)
class Sample:
    """One run of one server.

    Attributes:
        cpu_seconds: Processor time of the whole server process.
        loop_seconds: That of its main thread, on which the event loop runs.
        audio_bytes: Audio that was sent to it.
        accepted_after: For each utterance the seconds from its end to `accepted`.
        lag_seconds: The 99th percentile of the loop's lag, if the server tells it.
    """

    cpu_seconds: float
    loop_seconds: float
    audio_bytes: int
    accepted_after: Sequence[float]
    lag_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Spread:
    """The median of the rounds, the lowest and the highest."""

    median: float
    lowest: float
    highest: float

    @classmethod
    def of(cls, values: Iterable[float]) -> "Spread":
        """Return it of at least one value."""
        told = list(values)
        return cls(median(told), min(told), max(told))

    def __str__(self) -> str:
        """Return it for people."""
        if self.lowest == self.highest:
            return f"{self.median:.3g}"
        return f"{self.median:.3g} ({self.lowest:.3g}-{self.highest:.3g})"


Figures = Mapping[str, Spread]


@dataclass(frozen=True, slots=True)
class Line:
    """One subject in one case.

    Attributes:
        part: The part of the bench.
        case: What was done.
        subject: What it was done to.
        figures: What was found, by name and unit. Every line of a part has some of the same names.
    """

    part: str
    case: str
    subject: str
    figures: Figures


def spreads(rounds: Sequence[Mapping[str, float]]) -> dict[str, Spread]:
    """Return the spread of each figure that the rounds have; they all have the same ones."""
    return {name: Spread.of(each[name] for each in rounds) for name in rounds[0]}


def cost_lines(
    part: str, case: str, live: int, rounds: Sequence[Mapping[str, Sample]]
) -> list[Line]:
    """Put one case together. Each round holds a sample of every server, `BASE` among them.

    `live` is how many streams spoke at once at the pace of speech, 0 in bursts.
    """
    return [
        Line(part, case, name, spreads([_cost(each[name], each[BASE], live) for each in rounds]))
        for name in rounds[0]
    ]


def _cost(sample: Sample, bare: Sample, live: int) -> dict[str, float]:
    megabytes = sample.audio_bytes / 1e6
    cpu, loop = (each * 1000 / megabytes for each in (sample.cpu_seconds, sample.loop_seconds))
    base = bare.cpu_seconds * 1000 / (bare.audio_bytes / 1e6)
    found = {CPU: cpu, LOOP: loop, TIMES_BARE: cpu / base, LOOP_TIMES_BARE: loop / base}
    if not live:
        return found
    del found[LOOP_TIMES_BARE]  # the table is wide, and all threads count for those who pay
    found[CORE] = cpu / 1e9 * live * BYTES_PER_SECOND * 100
    found[P99] = percentiles(sample.accepted_after, [0.99])[0] * 1000
    if sample.lag_seconds is not None:
        found[LAG] = sample.lag_seconds * 1000
    return found


@dataclass(frozen=True, slots=True)
class Result:
    """A whole run.

    Attributes:
        broker: `embedded`, or `running` for one that was there.
        date: When it was taken, as ISO 8601 in UTC.
        rounds: How often everything was measured.
        is_quick: Whether it was a rough look, with less of everything.
        machine: Where.
        load_average_after: Of the last minute of the run: what else the machine did.
        lines: What was found, part after part.
    """

    broker: str
    date: str
    rounds: int
    is_quick: bool
    machine: Machine
    load_average_after: float
    lines: Sequence[Line]

    def json(self) -> str:
        """Return it for programs."""
        return json_text(asdict(self), indent=2) + "\n"

    def circumstances(self) -> str:
        """Return in a line what it was measured on."""
        return (
            f"{'a rough look (--quick); ' if self.is_quick else ''}"
            f"broker: {self.broker}; rounds: {self.rounds}; {self.machine.line()}, after "
            f"{self.load_average_after:.2f}"
        )

    def parts(self) -> Iterator[tuple[str, list[str], list[Line]]]:
        """Yield each part with the names of its figures and its lines."""
        for part, group in groupby(self.lines, lambda line: line.part):
            lines = list(group)
            yield part, list(dict.fromkeys(name for line in lines for name in line.figures)), lines

    def tables(self) -> Iterator[Table]:
        """Yield a table for each part, for people: medians alone."""
        for part, names, lines in self.parts():
            table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 0, 0, 1))
            table.add_column(part, no_wrap=True)
            table.add_column(no_wrap=True)
            for name in names:
                table.add_column(name, justify="right")
            for line in lines:
                medians = (
                    line.figures[each].median if each in line.figures else None for each in names
                )
                told = ("" if each is None else f"{each:.3g}" for each in medians)
                table.add_row(line.case, line.subject, *told)
            yield table
