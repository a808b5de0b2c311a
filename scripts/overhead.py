"""Measure what metrics, logs and traces cost a gateway: processor time for a megabyte of audio.

    uv run scripts/overhead.py [--rounds 12] [--json FILE]

It runs gateways of its own beside the embedded broker: one without any of it, one as it is, one
that exports its spans as well; and streams to them in turns, as fast as they take it.
"""

import json
import sys
from dataclasses import asdict
from enum import IntEnum
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer
from pipeline_tools.machine import this_machine
from pipeline_tools.overhead.gateway import Variant
from pipeline_tools.overhead.measure import Comparison, Load, measure
from rich.console import Console
from rich.table import Table

MOST_MESSAGE_BYTES = 65_536
MOST_SECONDS = 49.0


class Exit(IntEnum):
    """How the comparison ended."""

    WITHIN = 0
    BEYOND = 1
    USAGE = 2


EPILOG = """\\
Exit codes:

0  the gateway as it is costs at most --limit percent more than the bare one, in all sizes

1  it costs more

2  wrong usage
"""


def table(load: Load, comparisons: tuple[Comparison, ...]) -> Table:
    """Return the figures of one size for people."""
    title = f"{load.message_bytes}-byte messages, utterances of {load.seconds:g} s"
    made = Table(
        "gateway",
        "idle, CPU ms per s",
        "metrics read, CPU ms",
        "CPU ms per MB",
        "change",
        "of the rounds",
        "±",
        title=title,
    )
    for each in comparisons:
        spread = f"{each.least:+.1%} to {each.most:+.1%}"
        row = (
            f"{each.resting.idle_ms_per_second:.2f}",
            f"{each.resting.look_ms:.2f}",
            f"{each.ms_per_megabyte:.2f}",
            f"{each.change:+.1%}",
            spread,
            f"{each.error:.1%}",
        )
        made.add_row(each.variant, *row)
    return made


def report(found: dict[Load, tuple[Comparison, ...]], rounds: int) -> str:
    """Return all figures as JSON."""
    loads = [
        {**asdict(load), "gateways": [asdict(each) for each in comparisons]}
        for load, comparisons in found.items()
    ]
    return json.dumps({"machine": asdict(this_machine()), "rounds": rounds, "loads": loads})


def exit_code(found: dict[Load, tuple[Comparison, ...]], limit_percent: float) -> Exit:
    """Judge what a gateway costs that is watched as it always is."""
    changes = [
        each.change
        for comparisons in found.values()
        for each in comparisons
        if each.variant is Variant.WATCHED
    ]
    return Exit.WITHIN if max(changes) * 100 <= limit_percent else Exit.BEYOND


def main(
    message_bytes: Annotated[
        list[int],
        typer.Option(min=2, max=MOST_MESSAGE_BYTES, help="Size of the messages; may be repeated."),
    ] = [640, 3_200],  # noqa: B006 - typer copies it
    seconds: Annotated[
        float, typer.Option(min=0.1, max=MOST_SECONDS, help="Length of each utterance.")
    ] = 10.0,
    megabytes: Annotated[
        float, typer.Option(min=0.1, max=1_000, help="Audio that a gateway gets in a round.")
    ] = 25.6,
    clients: Annotated[int, typer.Option(min=1, max=100, help="Who speak at once.")] = 4,
    rounds: Annotated[int, typer.Option(min=1, max=1_000, help="How often all take turns.")] = 12,
    limit: Annotated[
        float, typer.Option(min=0, max=1_000, help="What the gateway may cost more, in percent.")
    ] = 5.0,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write all figures to this file, too.")
    ] = None,
) -> None:
    """Measure what metrics, logs and traces cost a gateway."""
    loads = [Load(size, seconds, megabytes, clients) for size in message_bytes]
    with TemporaryDirectory() as folder:
        found = measure(list(Variant), loads, rounds, Path(folder))
    console = Console()
    for load, comparisons in found.items():
        console.print(table(load, comparisons))
    console.print(this_machine().line(), highlight=False)
    if json_file is not None:
        json_file.write_text(report(found, rounds) + "\n", encoding="utf-8")
    sys.exit(exit_code(found, limit))


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, rich_markup_mode="markdown")
    app.command(epilog=EPILOG)(main)
    app()
