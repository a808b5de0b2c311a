"""Draw one frame of `speech top`: what both services do, with the last minute as a line of bars.

Pure. A frame fits into 80 columns and 24 lines, and can be read without colours.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from speech_tools.terminal import printable
from speech_tools.top.figures import HISTORY_SECONDS, WINDOW_SECONDS, History, State
from speech_tools.top.lines import lines

BARS = "▁▂▃▄▅▆▇█"
ASCII_BARS = "_.-~=+*#"
CELLS = 20
TITLE_WIDTH = 16


@dataclass(frozen=True, slots=True)
class Service:
    """A service as it is drawn."""

    name: str
    url: str
    history: History


@dataclass(frozen=True, slots=True)
class Frame:
    """Everything that is shown at one moment."""

    services: tuple[Service, ...]
    at: datetime

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Draw it. Bars are of ASCII where the terminal knows nothing else."""
        bars = ASCII_BARS if options.ascii_only else BARS
        head = _table()
        head.add_row(f"{self.at:%H:%M:%S} UTC", f"the last {WINDOW_SECONDS:g} s", "the last minute")
        yield head
        for service in self.services:
            yield _head(service)
            yield _rows(service.history, bars)


def _table() -> Table:
    table = Table.grid(padding=(0, 1), expand=True)
    table.add_column(width=TITLE_WIDTH, no_wrap=True)
    table.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
    table.add_column(width=CELLS, no_wrap=True)
    return table


def _head(service: Service) -> Text:
    state = service.history.newest.state
    parts = (service.name, service.url, state.version, condition(state))
    text = Text("\n" + "  ".join(printable(part) for part in parts if part))
    text.stylize("bold" if state.ready else "bold red")
    return text


def condition(state: State) -> str:
    """Say whether a service is there and ready, and why not."""
    if state.problem:
        return state.problem
    if state.ready:
        return "ready"
    reasons = ", ".join(f"{of} {reason}" for of, reason in state.reasons.items())
    return f"not ready: {reasons}"


def _rows(history: History, bars: str) -> Table:
    table = _table()
    minute = [(moment.at, lines(moment.figures)) for moment in history.moments]
    for row, now in enumerate(lines(history.newest)):
        bar = spark(((at, then[row].bar) for at, then in minute), bars)
        table.add_row(now.title, Text(now.text), Text(bar), style="red" if now.bad else "")
    return table


def spark(values: Iterable[tuple[float, float | None]], bars: str = BARS) -> str:
    """Draw values of the last minute, each with its time, to the scale of the largest.

    The newest is at the right. What is not known is left blank.
    """
    known = list(values)
    newest = max((at for at, _ in known), default=0.0)
    cells: list[float | None] = [None] * CELLS
    for at, value in known:
        cell = CELLS - 1 - int((newest - at) / HISTORY_SECONDS * CELLS)
        if value is not None and value >= 0 and cell >= 0:
            cells[cell] = max(value, cells[cell] or 0.0)
    scale = (len(bars) - 1) / (max(filter(None, cells), default=1.0))
    return "".join(" " if value is None else bars[round(value * scale)] for value in cells)
