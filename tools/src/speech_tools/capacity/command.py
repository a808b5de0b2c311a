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
HEAD = (
    *("speakers", "gateways", "cores", "GB", "edge, Mbit/s", "connections/s", "Kafka, MB/s"),
    *("brokers", "disk, GB", "recognisers", "cores", "GB", "partitions"),
)


def figure(value: float) -> str:
    """Return a figure of two digits, whole where it is larger."""
    return f"{value:,.0f}" if value >= 10 or value == int(value) else f"{value:.2g}"  # noqa: PLR2004


def row(demand: Demand) -> list[str]:
    """Return the figures of one demand, in the order of `HEAD`."""
    found = needs(demand)
    values = (
        *(demand.speakers, found.gateways, found.gateway_cores, found.gateway_memory_gb),
        *(found.edge_mbit, found.connections_per_second, found.kafka_mb_per_second),
        *(found.brokers, found.disk_gb, found.recognisers, found.recogniser_cores),
        *(found.recogniser_memory_gb, found.partitions),
    )
    return [figure(value) for value in values]


def breaking(demand: Demand) -> str:
    """Return what gives way between a tenth of these speakers and all of them."""
    return "; ".join(f"{each.what} ({each.speakers:,.0f}): {each.then}" for each in passed(demand))


def markdown(demands: list[Demand]) -> str:
    """Return the two tables of docs/scaling.md."""
    lines = [_line(HEAD), _line(["---:"] * len(HEAD)), *(_line(row(each)) for each in demands)]
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
    names = (
        *("gateways", "  cores", "  memory, GB", "edge, Mbit/s", "connections a second"),
        *("Kafka, MB/s", "  brokers", "  disk, GB", "recognisers", "  cores", "  memory, GB"),
        "partitions",
    )
    for at, name in enumerate(names, start=1):
        table.add_row(name, *(cells[at] for cells in rows))
    out.print(table)
    for each in demands:
        if told := breaking(each):
            out.print(f"to {each.speakers:,}: {told}")
