"""The report of `speech load`: one object, as a table for people and as JSON for programs."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass

from rich.table import Table

from speech_tools.load.metrics import Memory
from speech_tools.operations.metrics_page import Histogram
from speech_tools.percentiles import percentiles
from speech_tools.terminal import json_text, printable

NOT_AVAILABLE = "not available"
_MIB = 1024 * 1024
_PARTS = (0.5, 0.9, 0.99)


@dataclass(frozen=True, slots=True)
class Spread:
    """How a duration is spread, in milliseconds. Nothing where the source does not tell."""

    p50: float
    p90: float
    p99: float
    max: float | None = None

    @classmethod
    def of_values(cls, seconds: Sequence[float]) -> "Spread | None":
        """Return it of single values: each figure is one of them."""
        if not seconds:
            return None
        return cls(*_ms(percentiles(seconds, (*_PARTS, 1))))

    @classmethod
    def of_histogram(cls, histogram: Histogram | None) -> "Spread | None":
        """Return it as far as a histogram's buckets tell. They do not tell the largest value."""
        parts = [histogram.quantile(part) for part in _PARTS] if histogram else []
        known = [part for part in parts if part is not None]
        return cls(*_ms(known)) if known else None


@dataclass(frozen=True, slots=True)
class Report:
    """The result of one run.

    Attributes:
        clients: how many spoke at once.
        seconds: how long utterances were begun.
        utterance_seconds: how long each lasted.
        accepted: how many were stored, each with a receipt for the very samples.
        refused: before the upgrade, by code.
        failed: after it, by code.
        accepted_after_ms: from the end of the audio to `accepted`, as the clients saw it.
        loop_lag_ms: how late the gateway's event loop ran its timers during the run.
        own_loop_lag_ms: the same of this tool: what it adds, at most, to what the clients saw.
        memory_bytes: resident memory of the gateway.
    """

    clients: int
    seconds: float
    utterance_seconds: float
    accepted: int
    refused: Mapping[str, int]
    failed: Mapping[str, int]
    accepted_after_ms: Spread | None
    loop_lag_ms: Spread | None
    own_loop_lag_ms: Spread | None
    memory_bytes: Memory | None

    @property
    def all_accepted(self) -> bool:
        """Whether something was spoken, nothing was refused and nothing failed."""
        return bool(self.accepted and not self.refused and not self.failed)

    def json(self) -> str:
        """Return it as one JSON object with the names above."""
        return json_text(asdict(self), indent=2) + "\n"

    def table(self) -> Table:
        """Return it for people."""
        table = Table(show_header=False, title=f"{self.clients} clients, {self.seconds:g} s")
        table.add_column(justify="left")
        table.add_column(justify="right")
        for name, value in self._rows():
            table.add_row(name, value)
        return table

    def _rows(self) -> Iterator[tuple[str, str]]:
        yield "accepted", str(self.accepted)
        yield from _codes("refused", self.refused)
        yield from _codes("failed", self.failed)
        yield from _spread("end of audio to accepted", self.accepted_after_ms)
        yield from _spread("gateway's loop lag", self.loop_lag_ms)
        yield from _spread("this tool's loop lag", self.own_loop_lag_ms)
        yield from _memory(self.memory_bytes)


def _ms(seconds: Iterable[float]) -> Iterator[float]:
    return (round(value * 1000, 3) for value in seconds)


def _codes(name: str, counts: Mapping[str, int]) -> Iterator[tuple[str, str]]:
    if not counts:
        yield name, "0"
    for code, count in sorted(counts.items()):
        yield f"{name}: {printable(code)}", str(count)


def _spread(name: str, spread: Spread | None) -> Iterator[tuple[str, str]]:
    if spread is None:
        yield name, NOT_AVAILABLE
        return
    for part, value in asdict(spread).items():
        if value is not None:
            yield f"{name}, {part.upper() if part != 'max' else part}", f"{value:.1f} ms"


def _memory(memory: Memory | None) -> Iterator[tuple[str, str]]:
    if memory is None:
        yield "gateway's memory", NOT_AVAILABLE
        return
    for part, value in asdict(memory).items():
        yield f"gateway's memory, {part}", f"{value / _MIB:.1f} MiB"
