"""The picture of `speech latency`: the percentile curve end to end, and the hops it is made of.

Imported only where a picture is wanted: matplotlib is an extra, and takes its time to load.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Patch

from speech_tools.latency.hops import AFTER_THE_AUDIO, END_TO_END, RECEIPT
from speech_tools.latency.report import Figures, Report, heading
from speech_tools.percentiles import percentiles
from speech_tools.picture import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    SKY,
    WHITE,
    picture,
)

Waits = Sequence[Mapping[str, int]]
"""The waits of each utterance, by hop."""

PARTS = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99}
_OF_HOP = dict(zip((hop.name for hop in AFTER_THE_AUDIO), (PURPLE, ORANGE, BLUE, SKY), strict=True))
_ON_HOP = dict(zip(_OF_HOP, (BLACK, BLACK, WHITE, BLACK), strict=True))
_NEGATIVE = "////"
_LABELLED_PART = 0.04
"""A hop that takes less of the widest bar has no room for its figure."""


def draw(file: Path, report: Report, waits: Waits, old: Report | None = None) -> None:
    """Write a PNG.

    Args:
        file: Where to.
        report: What the waits have been measured under.
        waits: Those of at least one utterance.
        old: A report whose figures are shown beside the curve.
    """
    with picture(file, _title(report)) as figure:
        curve, stack = figure.subplots(2, 1, height_ratios=(3, 2))
        _draw_curves(curve, waits, old)
        _draw_stack(stack, waits)


def _title(report: Report) -> str:
    settings, machine = report.settings, report.machine
    assert settings is not None  # noqa: S101 - what has just been measured has both
    assert machine is not None  # noqa: S101
    pace = {"realtime": "at the pace of speech", "fast": "as fast as permitted"}[settings.pace]
    clients = "one client" if settings.clients == 1 else f"{settings.clients} clients"
    return (
        f"From the end of the audio to its text: {report.measured} utterances of "
        f"{settings.seconds:g} s, {pace}, {clients}\n"
        f"{settings.stack} pipeline · engine: {settings.engine} · "
        f"{machine.processor}, {machine.cores} cores · {(report.measured_at or '')[:10]}"
    )


def _draw_curves(axes: Axes, waits: Waits, old: Report | None) -> None:
    axes.set_title("What part of the utterances took at most so long")
    _draw_curve(axes, waits, END_TO_END.name, "text stored", BLACK)
    _draw_curve(axes, waits, RECEIPT.name, "receipt at the client", GREEN)
    if old is not None:
        _draw_old(axes, old.hops.get(END_TO_END.name, Figures()), len(waits))
    _set_scale(axes, len(waits))
    axes.set_ylabel("since the end of the audio (ms)")
    axes.set_ylim(bottom=min(0, axes.get_ylim()[0]), top=axes.get_ylim()[1] * 1.08)
    axes.grid(visible=True)
    axes.legend(loc="upper left", bbox_to_anchor=(0, 0.98))


def _draw_curve(axes: Axes, waits: Waits, hop: str, label: str, colour: str) -> None:
    values = sorted(each[hop] for each in waits)
    count = len(values)
    ranks = np.arange(count + 1) / count
    axes.step(_nines(ranks, count), [values[0], *values], color=colour, lw=2, label=label)
    parts = [*_shown(count).values()]
    places, marks = _nines(parts, count), percentiles(values, parts)
    axes.plot(places, marks, "o", color=colour, ms=5)
    for at, value in zip(places, marks, strict=True):
        axes.annotate(
            f"{value:.0f}",
            (float(at), value),
            xytext=(-3, 6),
            textcoords="offset points",
            ha="right",
            color=colour,
            weight="bold",
        )


def _draw_old(axes: Axes, figures: Figures, count: int) -> None:
    figure_of = {part: getattr(figures, name) for name, part in _shown(count).items()}
    known = {part: value for part, value in figure_of.items() if value is not None}
    at, values = _nines([*known], count), [*known.values()]
    axes.plot(at, values, "D", mfc="none", color=GREY, ms=6, label="text stored, before")


def _shown(count: int) -> dict[str, float]:
    """Return the percentiles that so many utterances tell from the slowest."""
    return {name: part for name, part in PARTS.items() if part <= 1 - 1 / count}


def _nines(parts: "Sequence[float] | np.ndarray", count: int) -> "np.ndarray":
    """Return where a part of the utterances stands on the axis: by its nines.

    Each tenth of what is left takes as much room as the one before, so the slow ones, which matter,
    are not pressed together at the edge. The whole (1) would be infinitely far away: it stands
    where half an utterance is left.
    """
    nines: np.ndarray = -np.log10(np.maximum(1 - np.asarray(parts), 0.5 / count))
    return nines


def _set_scale(axes: Axes, count: int) -> None:
    ticks = np.array([0, 0.5, 0.75, 0.9, 0.95, 0.99, 0.999, 0.9999])
    ticks = ticks[ticks <= 1 - 1 / count]
    names = ["fastest", *(f"P{part * 100:g}" for part in ticks[1:]), "slowest"]
    whole = np.append(ticks, 1.0)
    axes.set_xticks(_nines(whole, count), names)
    axes.set_xlim(0, float(_nines([1], count)[0]))
    axes.set_xlabel(
        "utterances, from the fastest to the slowest, on a scale that widens towards the slowest"
    )


def _draw_stack(axes: Axes, waits: Waits) -> None:
    """Draw the mean, whose hops add up, and whole utterances: percentiles of hops do not."""
    axes.set_title("The hops: their means, and those of the utterance at each percentile")
    totals = [each[END_TO_END.name] for each in waits]
    at_parts = [waits[totals.index(int(each))] for each in percentiles(totals, [*PARTS.values()])]
    bars = {"mean": _mean(waits)} | dict(zip(map(heading, PARTS), at_parts, strict=True))
    widest = max(sum(abs(each[hop]) for hop in _OF_HOP) for each in bars.values())
    for row, each in enumerate(bars.values()):
        _draw_bar(axes, row, each, least=widest * _LABELLED_PART)
    axes.set_yticks(range(len(bars)), [*bars])
    axes.invert_yaxis()
    # Times are whole milliseconds: one below zero is rounding, and too little to be seen.
    lowest = min(sum(min(each[hop], 0) for hop in _OF_HOP) for each in bars.values())
    left = lowest * 1.1 if lowest < -1 else 0
    axes.set_xlim(left, widest * 1.1)
    axes.set_xlabel("since the end of the audio (ms)")
    axes.grid(visible=True, axis="x")
    _draw_legend(axes, has_negative=left < 0)


def _mean(waits: Waits) -> Mapping[str, float]:
    return {hop: fmean(each[hop] for each in waits) for hop in waits[0]}


def _draw_bar(axes: Axes, row: int, waits: Mapping[str, float], least: float) -> None:
    """Draw one utterance; a negative wait goes to the left of zero, and is seen."""
    right = left = 0.0
    for hop, colour in _OF_HOP.items():
        wait = waits[hop]
        begin, hatch = (right, None) if wait >= 0 else (left, _NEGATIVE)
        bar = axes.barh(row, wait, left=begin, height=0.62, color=colour, hatch=hatch)
        if wait >= least:
            axes.bar_label(bar, [f"{wait:.0f}"], label_type="center", color=_ON_HOP[hop])
        right, left = right + max(wait, 0), left + min(wait, 0)
    axes.annotate(
        f"{waits[END_TO_END.name]:.0f} ms",
        (right, row),
        xytext=(5, 0),
        textcoords="offset points",
        va="center",
        weight="bold",
    )


def _draw_legend(axes: Axes, *, has_negative: bool) -> None:
    patches = [Patch(color=colour, label=hop) for hop, colour in _OF_HOP.items()]
    if has_negative:
        label = "negative wait"
        patches.append(Patch(facecolor="white", hatch=_NEGATIVE, edgecolor=GREY, label=label))
    axes.legend(handles=patches, ncols=len(patches), loc="upper left", bbox_to_anchor=(0, -0.25))
