"""`speech capacity`: what so many speakers need, and which limit is passed first."""

from dataclasses import asdict
from enum import IntEnum
from typing import Annotated, Any

import typer
from rich.table import Table

from speech_tools.capacity.model import CONSTANTS, ENGINES, Demand, needs, passed, powers_of_ten
from speech_tools.command_line import exit_codes, make_app
from speech_tools.terminal import Terminal, json_text


class Exit(IntEnum):
    """How it ended."""

    COMPUTED = 0
    USAGE = 2


EPILOG = exit_codes(
    {Exit.COMPUTED: "the figures are there", Exit.USAGE: "wrong usage"},
    "A speaker speaks without a pause. The constants, with their dates and sources, are in --json.",
)
COLUMNS = (
    ("gateways", "gateways", "gateways"),
    ("gateway_cores", "cores", "  cores"),
    ("gateway_memory_gb", "GB", "  memory, GB"),
    ("edge_mbit", "edge, Mbit/s", "edge, Mbit/s"),
    ("connections_per_second", "connections/s", "connections a second"),
    ("kafka_mb_per_second", "Kafka, MB/s", "Kafka, MB/s"),
    ("brokers", "brokers", "  brokers"),
    ("disk_gb", "disk, GB", "  disk, GB"),
    ("recognisers", "recognisers", "recognisers"),
    ("recogniser_cores", "cores", "  cores"),
    ("recogniser_memory_gb", "GB", "  memory, GB"),
    ("partitions", "partitions", "partitions"),
)
"""What is shown of `Needs`: the field, its name in a document, and its name on the terminal."""


def figure(value: float) -> str:
    """Return a figure of two digits, whole where it is larger."""
    return f"{value:,.0f}" if value >= 10 or value == int(value) else f"{value:.2g}"  # noqa: PLR2004


def row(demand: Demand) -> list[str]:
    """Return the figures of one demand, in the order of `COLUMNS`."""
    found = needs(demand)
    return [figure(getattr(found, field)) for field, _, _ in COLUMNS]


def breaking(demand: Demand) -> str:
    """Return what gives way between a tenth of these speakers and all of them."""
    return "; ".join(f"{each.what} ({each.speakers:,.0f}): {each.then}" for each in passed(demand))


def markdown(demands: list[Demand]) -> str:
    """Return the two tables of docs/scaling.md."""
    head = ["speakers", *(name for _, name, _ in COLUMNS)]
    lines = [_line(head), _line(["---:"] * len(head))]
    lines += [_line([f"{each.speakers:,}", *row(each)]) for each in demands]
    gives = [_line(("speakers", "what gives way on the way there, the first one first"))]
    gives += [_line(("---:", "---"))]
    gives += [_line((f"{each.speakers:,}", breaking(each) or "nothing")) for each in demands]
    return "\n".join([*lines, "", *gives])


def _line(cells: Any) -> str:  # noqa: ANN401
    return f"| {' | '.join(cells)} |"


def as_json(demand: Demand) -> dict[str, Any]:
    """Return everything for a program."""
    return {
        "demand": asdict(demand),
        "needs": asdict(needs(demand)),
        "passed": [asdict(each) for each in passed(demand)],
        "constants": CONSTANTS,
    }


app = make_app()


@app.command(epilog=EPILOG)
def main(
    speakers: Annotated[
        int | None,
        typer.Argument(
            min=1, max=10_000_000, help="who speak at once; 10 to a million if left out"
        ),
    ] = None,
    *,
    utterance_seconds: Annotated[float, typer.Option(min=0.1, max=49, help="of each")] = 5.0,
    retention_hours: Annotated[float, typer.Option(min=0.1, max=8_760, help="on Kafka")] = 24.0,
    replication: Annotated[int, typer.Option(min=1, max=10, help="copies on Kafka")] = 3,
    engine: Annotated[str, typer.Option(help=", ".join(ENGINES))] = "tiny.en",
    as_markdown: Annotated[bool, typer.Option("--markdown", help="as a document has it")] = False,
    in_json: Annotated[bool, typer.Option("--json", help="print one JSON object each")] = False,
) -> None:
    """Compute what so many speakers need.

    And what gives way first on the way there.
    """
    if engine not in ENGINES:
        raise typer.BadParameter(f"expected one of {', '.join(ENGINES)}", param_hint="--engine")
    asked = Demand(speakers or 10, utterance_seconds, retention_hours, replication, engine)
    demands = [asked] if speakers else list(powers_of_ten(asked))
    if in_json:
        for each in demands:
            print(json_text(as_json(each)))
    elif as_markdown:
        print(markdown(demands))
    else:
        _show(demands)


def _show(demands: list[Demand]) -> None:
    out = Terminal(soft_wrap=True)
    table = Table()
    table.add_column("")
    for each in demands:
        table.add_column(f"{each.speakers:,}", justify="right")
    rows = [row(each) for each in demands]
    for (_, _, name), *cells in zip(COLUMNS, *rows, strict=True):
        table.add_row(name, *cells)
    out.print(table)
    for each in demands:
        if told := breaking(each):
            out.print(f"to {each.speakers:,}: {told}")
