"""Draw one frame of `speech top`: what both services do, with the last minute as a line of bars.

Pure. A frame fits into 80 columns and 24 lines, and can be read without colours.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import urlsplit

from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from speech_tools.terminal import printable
from speech_tools.top.figures import HISTORY_SECONDS, WINDOW_SECONDS, Figures, History
from speech_tools.top.fleet import condition, fleet_line, replica_line
from speech_tools.top.lines import Line, lines

BARS = "▁▂▃▄▅▆▇█"
ASCII_BARS = "_.-~=+*#"
CELLS = 20
TITLE_WIDTH = 16


@dataclass(frozen=True, slots=True)
class Service:
    """A service as it is drawn.

    Attributes:
        name: what it is.
        url: of its operations port, as it was asked for.
        replicas: each by the URL that it was found under; at least one.
    """

    name: str
    url: str
    replicas: Mapping[str, History]

    @property
    def now(self) -> tuple[Figures, ...]:
        """What each replica does now."""
        return tuple(each.newest for each in self.replicas.values())


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
            yield _fleet(service, bars) if len(service.replicas) > 1 else _rows(service, bars)


def _table() -> Table:
    table = Table.grid(padding=(0, 1), expand=True)
    table.add_column(width=TITLE_WIDTH, no_wrap=True)
    table.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
    table.add_column(width=CELLS, no_wrap=True)
    return table


def _head(service: Service) -> Text:
    states = [each.state for each in service.now]
    ready = sum(bool(state.ready) for state in states)
    state = states[0]
    known = (state.version, condition(state)) if len(states) == 1 else (f"{ready} ready",)
    text = Text(
        "\n" + "  ".join(printable(part) for part in (service.name, service.url, *known) if part)
    )
    text.stylize("bold" if ready == len(states) else "bold red")
    return text


def _rows(service: Service, bars: str) -> Table:
    (history,) = service.replicas.values()
    table = _table()
    minute = [(moment.at, lines(moment.figures)) for moment in history.moments]
    for row, now in enumerate(lines(history.newest)):
        _add(table, now, spark(((at, then[row].bar) for at, then in minute), bars))
    return table


def _fleet(service: Service, bars: str) -> Table:
    """Return a row for all replicas together, and one for each."""
    table = _table()
    _add(table, fleet_line(service.now), "")
    for url, history in service.replicas.items():
        address = urlsplit(url).hostname or url
        minute = ((each.at, replica_line(address, each.figures).bar) for each in history.moments)
        _add(table, replica_line(address, history.newest), spark(minute, bars))
    return table


def _add(table: Table, line: Line, bar: str) -> None:
    style = "red" if line.bad else ""
    table.add_row(printable(line.title), Text(printable(line.text)), Text(bar), style=style)


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
