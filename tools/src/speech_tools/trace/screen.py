"""Show traces to people: every hop of one utterance with a bar, or a line for each of many.

Used by `trace.tracer`. Bars are drawn to scale, and each part has its own shape. So they can be
read without colours and in 80 columns.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from rich.table import Table
from rich.text import Text

from speech_tools.terminal import Terminal, printable
from speech_tools.trace import tracing
from speech_tools.trace.tracing import Hop, Missing, Trace

MIN_WIDTH = 80
PIPED_WIDTH = 100
HOP_COLUMNS_WIDTH = 60
"""What stands beside the bars of one utterance's hops."""
LINE_COLUMNS_WIDTH = 56
"""What stands beside the bar and the outcome in an utterance's line."""
LONGEST_BAR = 30


@dataclass(frozen=True, slots=True)
class Shapes:
    """What bars are made of."""

    speaking: str = "░"
    waiting: str = "▒"
    recognising: str = "█"
    instant: str = "▏"

    def of(self, hop: str) -> str:
        """Return what the wait before a hop is drawn with."""
        match hop:
            case tracing.HANDSHAKE | tracing.FIRST_AUDIO | tracing.END_OF_AUDIO:
                return self.speaking
            case tracing.RECOGNISED | tracing.TEXT_STORED:
                return self.recognising
            case _:
                return self.waiting

    @property
    def legend(self) -> str:
        """Explain the parts of a line's bar."""
        return f"{self.speaking} speaking  {self.waiting} waiting  {self.recognising} recognising"


PLAIN = Shapes(".", "-", "#", "|")
"""For terminals that know ASCII only."""


class Screen:
    """Prints traces. Lines share the scale of the longest so far."""

    def __init__(self, console: Terminal | None = None) -> None:
        self._console = console or Terminal()
        if console is None:
            width = self._console.width if self._console.is_terminal else PIPED_WIDTH
            self._console.width = max(width, MIN_WIDTH)
        self._shapes = PLAIN if self._console.options.ascii_only else Shapes()
        self._longest_ms = 1

    def whole(self, found: Trace) -> None:
        """Show one utterance: its hops, and what was heard."""
        say = self._console.say
        say(f"utterance {found.correlation_id}")
        ending = f", ended by {found.ended_by}" if found.ended_by else ""
        name = f", client_ref {found.client_ref}" if found.client_ref else ""
        say(f"{_day(found)}{ending}{name}")
        self._console.print(self._hops(found))
        if _slowest(found):
            say("* the longest wait after the end of audio")
        for result in found.results:
            say(f"text: {_said(result)}", style="bold")
            say(f"language {result.language}, confidence {result.confidence:.2f}")
            if result.repeats:
                say(f"the same result was stored again: {result.repeats} times")

    def head(self) -> None:
        """Say what stands in the lines that follow."""
        self._print(f"bars: {self._shapes.legend}")
        self._print(f"{'UTC':8} {'utterance':36} {'to text':>9}")

    def lines(self, found: Iterable[Trace]) -> None:
        """Show a line for each of several utterances, all to the same scale."""
        traces = list(found)
        self._longest_ms = max([self._longest_ms, *map(_length_ms, traces)])
        for each in traces:
            self.line(each)

    def line(self, found: Trace) -> None:
        """Show an utterance in one line."""
        self._longest_ms = max(self._longest_ms, _length_ms(found))
        room = self._console.width - LINE_COLUMNS_WIDTH
        width = min(room // 2 - 1, LONGEST_BAR)
        at_ms = next((hop.at_ms for hop in found.hops if hop.at_ms is not None), None)
        wait_ms = _between(found, tracing.END_OF_AUDIO, tracing.TEXT_STORED)
        self._print(
            f"{_clock(at_ms, 'seconds'):8} {found.correlation_id:36} {_seconds(wait_ms):>9}"
            f" {self._parts(found, width):{width}} {outcome(found)}"
        )

    def _print(self, line: str) -> None:
        text = Text(printable(line))
        text.truncate(self._console.width, overflow="ellipsis")
        self._console.print(text)

    def _hops(self, found: Trace) -> Table:
        table = Table("hop", "UTC", box=None, pad_edge=False, padding=(0, 2, 0, 0))
        for name in ("wait", "part.", "offset"):
            table.add_column(name, justify="right")
        table.add_column()
        slowest = _slowest(found)
        for hop in found.hops:
            place = (str(hop.place.partition), str(hop.place.offset)) if hop.place else ("", "")
            mark = " *" if hop is slowest else "  "
            wait = _seconds(hop.wait_ms) + mark if hop.wait_ms is not None else ""
            bar = self._bar(hop, found, self._console.width - HOP_COLUMNS_WIDTH)
            style = "bold" if hop is slowest else ""
            table.add_row(hop.name, _clock(hop.at_ms), wait, *place, bar, style=style)
        if found.missing and found.missing.hop not in {each.name for each in found.hops}:
            table.add_row(found.missing.hop, "missing", style="bold")
        return table

    def _bar(self, hop: Hop, found: Trace, width: int) -> str:
        """Draw from when the hop before was to when this one was, on the scale of the whole."""
        if hop.at_ms is None or hop.wait_ms is None:
            return ""
        cell = max(_length_ms(found), 1) / (width - 1)
        end_ms = hop.at_ms - min(_times(found))
        begin = round(max(end_ms - max(hop.wait_ms, 0), 0) / cell)
        shape = self._shapes.of(hop.name) * (round(end_ms / cell) - begin)
        return " " * begin + (shape or self._shapes.instant)

    def _parts(self, found: Trace, width: int) -> str:
        """Draw how long was spoken, waited and recognised, on the scale of the longest line."""
        shapes = self._shapes
        until = [
            (shapes.speaking, tracing.HANDSHAKE, tracing.END_OF_AUDIO),
            (shapes.waiting, tracing.END_OF_AUDIO, tracing.FETCHED),
            (shapes.recognising, tracing.FETCHED, tracing.TEXT_STORED),
        ]
        cells = (width - len(until)) / self._longest_ms
        lengths = ((shape, _between(found, begin, end)) for shape, begin, end in until)
        return "".join(shape * (int(ms * cells) + 1) for shape, ms in lengths if ms)


def outcome(found: Trace) -> str:
    """Say in a few words what became of an utterance."""
    if found.results:
        return " / ".join(_said(result) for result in found.results)
    if found.refusal:
        return f"dead letter: {found.refusal.reason}"
    assert found.missing is not None  # noqa: S101  # what has no text lacks a hop
    return _waits(found.missing)


def _waits(missing: Missing) -> str:
    if missing.hop not in {tracing.FETCHED, tracing.RECOGNISED}:
        return "no text" if missing.hop == tracing.TEXT_STORED else f"not {missing.hop}"
    queue = f", {missing.before} before it" if missing.before else ""
    return f"waits{queue}" + (", no ASR" if missing.members == 0 else "")


def _said(result: tracing.Result) -> str:
    return result.text or "(no speech)"


def _slowest(found: Trace) -> Hop | None:
    """Return the hop after the end of audio that was waited for longest: speech takes its time."""
    names = [hop.name for hop in found.hops]
    after = found.hops[names.index(tracing.END_OF_AUDIO) + 1 :]
    waits = [hop for hop in after if hop.wait_ms]
    return max(waits, key=lambda hop: hop.wait_ms or 0, default=None)


def _times(found: Trace) -> list[int]:
    return [hop.at_ms for hop in found.hops if hop.at_ms is not None]


def _length_ms(found: Trace) -> int:
    times = _times(found)
    return max(times) - min(times) if times else 0


def _between(found: Trace, begin: str, end: str) -> int | None:
    """Return how long it took from one hop to another, of the first result."""
    at_ms: dict[str, int | None] = {}
    for hop in found.hops:
        at_ms.setdefault(hop.name, hop.at_ms)
    first, last = at_ms.get(begin), at_ms.get(end)
    return None if first is None or last is None else max(last - first, 0)


def _seconds(ms: int | None) -> str:
    return "" if ms is None else f"{ms / 1000:.3f} s"


def _day(found: Trace) -> str:
    times = _times(found)
    return (
        f"{datetime.fromtimestamp(min(times) / 1000, UTC):%Y-%m-%d}" if times else "day not known"
    )


def _clock(at_ms: int | None, precision: str = "milliseconds") -> str:
    if at_ms is None:
        return "not known"[: 8 if precision == "seconds" else None]
    return datetime.fromtimestamp(at_ms / 1000, UTC).time().isoformat(precision)
