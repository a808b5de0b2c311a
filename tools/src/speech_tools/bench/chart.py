"""The picture of `speech bench`: for each part that compares, a bar for each line of its table.

Imported only where a picture is wanted: matplotlib is an extra, and takes its time to load.
"""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes

from speech_tools import picture
from speech_tools.bench.parts import Part
from speech_tools.bench.result import BASE, CORE, P50, TIMES_BARE, Line, Result, Spread
from speech_tools.bench.servers import GATEWAY, UVLOOP

_SHOWN = {
    Part.BURST: (TIMES_BARE, "Bursts: processor time, times the bare server's"),
    Part.PACED: (TIMES_BARE, "Live: processor time, times the bare server's"),
    Part.STREAMS: (CORE, "Live streams: share of one core"),
    Part.LATENCY: (P50, "End of the audio to the receipt, P50 in ms"),
}
_COLOURS = {BASE: picture.GREY, UVLOOP: picture.SKY, GATEWAY: picture.BLUE}
_COLUMNS = 2


def draw(file: Path, result: Result) -> None:
    """Write a PNG: medians, with a whisker from the lowest to the highest."""
    found = {part: [line for line in result.lines if line.part == part] for part in _SHOWN}
    parts = [part for part, lines in found.items() if lines]
    machine = result.machine
    title = (
        "What the gateway costs beside a bare websockets server\n"
        f"{machine.processor}, {machine.cores} cores · {result.broker} broker · {result.date[:10]}"
    )
    with picture.picture(file, title) as figure:
        places = figure.subplots(-(-max(1, len(parts)) // _COLUMNS), _COLUMNS, squeeze=False).flat
        for axes in places[len(parts) :]:
            axes.set_visible(False)
        for axes, part in zip(places, parts, strict=False):
            _draw_bars(axes, found[part], *_SHOWN[part])


def _draw_bars(axes: Axes, lines: Sequence[Line], figure: str, title: str) -> None:
    axes.set_title(title)
    for row, line in enumerate(lines):
        spread = line.figures[figure]
        axes.barh(row, spread.median, height=0.7, color=_COLOURS.get(line.subject, picture.ORANGE))
        axes.plot([spread.lowest, spread.highest], [row, row], color=picture.BLACK, lw=1.5)
        _tell(axes, row, spread)
    axes.set_yticks(range(len(lines)), [f"{line.case}: {line.subject}" for line in lines])
    axes.tick_params(axis="y", labelsize=8)
    axes.invert_yaxis()
    axes.set_xlim(0, max(line.figures[figure].highest for line in lines) * 1.2)
    axes.grid(visible=True, axis="x")


def _tell(axes: Axes, row: int, spread: Spread) -> None:
    axes.annotate(
        f"{spread.median:.3g}",
        (spread.highest, row),
        xytext=(4, 0),
        textcoords="offset points",
        va="center",
        fontsize=8,
        weight="bold",
    )
