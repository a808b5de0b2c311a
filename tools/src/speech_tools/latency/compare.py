"""Two reports of `speech latency` side by side, and what has become too slow."""

from collections.abc import Iterator
from dataclasses import dataclass

from rich.table import Table
from rich.text import Text

from speech_tools.latency.hops import HOPS
from speech_tools.latency.report import FIGURES, Figures, Report, circumstances, heading

JUDGED = ("p50", "p90", "p95", "p99")
"""The others are only shown: an extreme is one utterance, and the mean follows extremes."""


@dataclass(frozen=True, slots=True)
class Rule:
    """When a figure has become too slow: by more than both of these.

    Attributes:
        threshold: As a part of what it was, 0.1 for 10 %.
        floor_ms: So that noise at a hop of a few milliseconds does not count.
    """

    threshold: float
    floor_ms: float

    def is_beyond(self, change: "Change") -> bool:
        """Tell whether a figure has become too slow."""
        if change.figure not in JUDGED:
            return False
        return change.by_ms > max(self.threshold * abs(change.old), self.floor_ms)


@dataclass(frozen=True, slots=True)
class Change:
    """One figure at one hop, in milliseconds."""

    hop: str
    figure: str
    old: float
    new: float

    @property
    def by_ms(self) -> float:
        """How much slower it is. Negative where it is faster."""
        return self.new - self.old

    @property
    def percent(self) -> str:
        """The same as a part of the old figure, which may be 0."""
        return f"{self.by_ms / self.old:+.0%}" if self.old > 0 else "n/a"

    def line(self) -> str:
        """Return it for people."""
        return (
            f"{self.hop}, {heading(self.figure)}: {self.old:.0f} ms before, {self.new:.0f} ms now "
            f"({self.by_ms:+.0f} ms, {self.percent})"
        )


def changes(old: Report, new: Report) -> list[Change]:
    """Return every figure that both reports have, in the order of the way."""
    return [
        Change(hop.name, figure, was, now)
        for hop in HOPS
        for figure in FIGURES
        if (was := _value(old, hop.name, figure)) is not None
        and (now := _value(new, hop.name, figure)) is not None
    ]


def _value(report: Report, hop: str, figure: str) -> float | None:
    value: float | None = getattr(report.hops.get(hop, Figures()), figure)
    return value


def notes(old: Report, new: Report) -> Iterator[str]:
    """Yield what has to be known to compare: the notes, and what was not alike, if it is known."""
    if old.note:
        yield f"before: {old.note}"
    before, now = circumstances(old), circumstances(new)
    for name, value in before.items():
        if name in now and now[name] != value:
            yield f"not alike: {name} was {value}, now {now[name]}"


def table(found: list[Change], rule: Rule) -> Table:
    """Return the new figures with their changes below them. What is too slow stands out."""
    made = Table(title="in ms, and how much slower (+) than before")
    made.add_column("hop", no_wrap=True)
    for name in FIGURES:
        made.add_column(heading(name), justify="right")
    by_hop: dict[str, dict[str, Change]] = {}
    for change in found:
        by_hop.setdefault(change.hop, {})[change.figure] = change
    for hop, figures in by_hop.items():
        made.add_row(hop, *(_cell(figures.get(name), rule) for name in FIGURES))
    return made


def _cell(change: Change | None, rule: Rule) -> Text:
    if change is None:
        return Text()
    text = f"{round(change.new)}\n{round(change.by_ms):+} {change.percent}"
    return Text(f"{text} !", style="bold red") if rule.is_beyond(change) else Text(text)
