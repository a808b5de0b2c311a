"""`speech bench`: its arithmetic, its page, and a short run against real servers."""

import asyncio
import json
import re
from pathlib import Path

import pytest
from rich.console import Console
from speech_tools.bench import accepted, clients, memory, page, recogniser
from speech_tools.bench.command import app
from speech_tools.bench.measure import bursts, paced
from speech_tools.bench.recogniser import Done
from speech_tools.bench.result import BASE, P50, P99, Line, Result, Sample, Spread, cost_lines
from speech_tools.bench.servers import GATEWAY
from speech_tools.machine import Machine
from support.invoke import invoke
from websockets.asyncio.server import ServerConnection, serve

MACHINE = Machine("a processor", 2, 2**34, "3.11.7", "Linux 6", 0.5)
ROUNDS = [
    {
        BASE: Sample(1.0, 0.9, 10**8, [0.001]),
        GATEWAY: Sample(1.5, 1.25, 10**8, [0.004, 0.008], lag_seconds=0.002),
    },
    {
        BASE: Sample(2.0, 1.9, 10**8, [0.002]),
        GATEWAY: Sample(2.5, 2.0, 10**8, [0.005, 0.006], lag_seconds=0.004),
    },
    {
        BASE: Sample(4.0, 3.9, 10**8, [0.003]),
        GATEWAY: Sample(4.5, 4.0, 10**8, [0.005, 0.007], lag_seconds=0.003),
    },
]
DOCUMENT = Path(__file__).parents[2] / "docs/performance.md"
COST = {"ms/MB", "loop ms/MB", "times bare"}
LIVE = {*COST, "core %", "P99 ms", "lag P99 ms"}
FIGURES = {
    "burst": {*COST, "loop times bare"},
    "paced": LIVE,
    "streams": LIVE,
    "latency": {"P50 ms", "P99 ms", "over bare, ms", "times bare"},
    "memory": {"MB", "KB", "times the audio"},
    "recogniser": {"real-time factor", "idle %", "times speech"},
}
"""What each part finds, by the name of its columns."""


def of(lines: list[Line]) -> dict[tuple[str, str], dict[str, float]]:
    """Return the medians by case and subject."""
    return {
        (line.case, line.subject): {name: each.median for name, each in line.figures.items()}
        for line in lines
    }


def result() -> Result:
    """Return one that has a case of bursts and one of live streams."""
    lines = [*cost_lines("burst", "640 B", 0, ROUNDS), *cost_lines("streams", "10 x", 10, ROUNDS)]
    return Result("embedded", "2026-11-25T00:00:00+00:00", 3, False, MACHINE, 1.5, lines)


def test_a_spread_is_the_median_with_the_lowest_and_the_highest():
    """The order of the rounds does not count."""
    assert Spread.of([3.0, 1.0, 2.5]) == Spread(median=2.5, lowest=1.0, highest=3.0)
    assert [str(Spread.of(each)) for each in ([1.0], [3, 1, 2.5])] == ["1", "2.5 (1-3)"]


def test_ratios_are_taken_round_by_round():
    """A machine that is slow for one round is slow for both, so the ratio holds still."""
    bare, gateway = cost_lines("burst", "640 B", 0, ROUNDS)
    assert bare.figures["times bare"] == Spread(1.0, 1.0, 1.0)
    assert gateway == Line(
        "burst",
        "640 B",
        GATEWAY,
        {
            "ms/MB": Spread(25.0, 15.0, 45.0),
            "loop ms/MB": Spread(20.0, 12.5, 40.0),
            "times bare": Spread(1.25, 1.125, 1.5),
            "loop times bare": Spread(1.0, 1.0, 1.25),
        },
    )


def test_the_share_of_a_core_is_of_the_bytes_that_live_streams_send():
    """So the time in which streams begin and end does not make it smaller."""
    _, gateway = cost_lines("streams", "10 x", 10, ROUNDS)
    assert gateway.figures["core %"] == Spread(0.8, 0.48, 1.44)  # 25 ms/MB at 0.32 MB/s
    assert gateway.figures["P99 ms"] == Spread(7.0, 6.0, 8.0)
    assert gateway.figures["lag P99 ms"] == Spread(3.0, 2.0, 4.0)


def test_the_gateway_stands_beside_a_bare_produce_and_a_bare_reply():
    """The sum of the two is what it cannot be faster than."""
    waits = {accepted.PRODUCE: [0.002], accepted.REPLY: [0.001], GATEWAY: [0.004, 0.004, 0.009]}
    assert of(accepted.lines("latency", 1, [waits])) == {
        ("one client", accepted.PRODUCE): {P50: 2.0, P99: 2.0},
        ("one client", accepted.REPLY): {P50: 1.0, P99: 1.0},
        ("one client", accepted.BARE): {P50: 3.0, P99: 3.0},
        ("one client", GATEWAY): {
            P50: 4.0,
            P99: 9.0,
            "over bare, ms": 1.0,
            "times bare": pytest.approx(4 / 3),
        },
    }


def test_full_buffers_are_told_beside_their_audio():
    """The limit is in multiples of the audio, so that it holds for other limits, too."""
    found = {"started": 50.0, "idle": 60.0, "connection": 20.0, "audio": 16.0, "full": 20.0}
    lines = of(memory.lines("memory", [{**found, "peak": 32.0}]))
    assert lines == {
        ("just started", "RSS"): {"MB": 50.0},
        ("idle after an utterance", "RSS"): {"MB": 60.0},
        ("each of 200 idle connections", "over idle"): {"KB": 20.0},
        ("10 full buffers", "over idle"): {"MB": 20.0, "times the audio": 1.25},
        ("10 full buffers, as all end", "peak over idle"): {"MB": 32.0, "times the audio": 2.0},
    }


def test_the_idle_share_counts_every_worker():
    """Two workers that were at work for 15 of 20 seconds together were idle for a quarter."""
    was, now = Done(3, 1.0, 10.0), Done(9, 16.0, 60.0)
    assert recogniser.figures(was, now, wall=10.0, workers=2) == {
        "real-time factor": 0.3,
        "idle %": 25.0,
        "times speech": 5.0,
    }


def test_the_tables_fit_a_terminal_of_80_columns():
    """One for each part, a line for each server; what a server does not tell is empty."""
    console = Console(width=80)
    with console.capture() as told:
        for table in result().tables():
            console.print(table)
    rows = [line.split() for line in told.get().splitlines()]
    assert ["640", "B", *GATEWAY.split(), "25", "20", "1.25", "1"] in rows
    assert ["10", "x", *BASE.split(), "20", "19", "1", "0.64", "2"] in rows
    assert ["10", "x", GATEWAY, "25", "20", "1.25", "0.8", "7", "3"] in rows


def test_the_result_goes_between_the_marks_of_a_page(tmp_path: Path):
    """What people wrote around them stays, however often it is written."""
    file = tmp_path / "performance.md"
    file.write_text(f"# Title\n\n{page.BEGIN}\nold\n{page.END}\n\nMore.\n", encoding="utf-8")
    page.check(file)
    page.write(file, result())
    once = file.read_text(encoding="utf-8")
    page.write(file, result())
    assert file.read_text(encoding="utf-8") == once
    assert once.startswith(f"# Title\n\n{page.BEGIN}\n\nTaken on 2026-11-25. broker: embedded; ")
    assert once.endswith(f"({page.PICTURE})\n\n{page.END}\n\nMore.\n")
    assert (
        "\n| streams |  | ms/MB | loop ms/MB | times bare | core % | P99 ms | lag P99 ms |\n"
        in once
    )
    assert (
        "\n| 640 B | gateway | 25 (15-45) | 20 (12.5-40) | 1.25 (1.12-1.5) | 1 (1-1.25) |\n" in once
    )
    assert "old" not in once
    assert (tmp_path / page.PICTURE).read_bytes().startswith(b"\x89PNG")


def test_the_document_explains_each_part_and_column_and_has_a_place_for_them():
    """So that `speech bench --write` can put the next result there."""
    page.check(DOCUMENT)
    text = DOCUMENT.read_text(encoding="utf-8").split(page.BEGIN)[0]
    explained = set(re.findall(r"`([^`\n]+)`", text))
    assert [
        name for name in (*FIGURES, *set().union(*FIGURES.values())) if name not in explained
    ] == []


def test_a_page_without_marks_is_told_before_the_run(tmp_path: Path):
    """It is a wrong usage, in one line, and the page stays as it is."""
    file = tmp_path / "page.md"
    file.write_text("# Title\n", encoding="utf-8")
    done = invoke(app, "--embedded", "--quick", "--write", str(file))
    assert done.returncode == 2
    assert "has no place for the result" in done.stderr
    assert file.read_text(encoding="utf-8") == "# Title\n"


def test_a_file_that_cannot_be_written_is_told_before_the_run(tmp_path: Path):
    """It is a wrong usage, in one line."""
    told = tmp_path / "not" / "there.json"
    done = invoke(app, "--embedded", "--quick", "--json", str(told))
    assert done.returncode == 2
    assert "bench: " in done.stderr


def test_a_case_counts_the_audio_that_is_sent():
    """Whole messages alone: 3,200 and 65,536 bytes do not both divide an utterance."""
    cases = [*bursts(2), paced(10, 640, 1.0), paced(10, 3_200, 1.0)]
    assert [(case.name, case.live, case.audio_bytes) for case in cases] == [
        ("640 B", 0, 2 * 1_310_720),
        ("3,200 B", 0, 2 * 1_308_800),
        ("65,536 B", 0, 2 * 1_310_720),
        ("10 x 640 B", 10, 320_000 + 176_000),
        ("10 x 3,200 B", 10, 320_000 + 176_000),
    ]


@pytest.mark.parametrize("send", ["burst", "live", "said"])
def test_an_utterance_that_is_not_accepted_ends_the_measurement(send):
    """With the code that the server gave: figures of refused audio would be too good."""

    async def refuse(connection: ServerConnection) -> None:
        async for message in connection:
            if isinstance(message, str):
                await connection.send('{"status": "error", "code": "broker_unavailable"}')

    async def speak() -> None:
        async with serve(refuse, "127.0.0.1", 0) as server:
            url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            match send:
                case "burst":
                    await clients.burst(url, 640, 6_400)
                case "said":
                    await clients.said(url, bytes(6_400))
                case _:
                    await clients.live(url, 2, 640, 3)

    with pytest.raises(clients.BenchError, match="not accepted: broker_unavailable"):
        asyncio.run(speak())


@pytest.mark.pipeline
@pytest.mark.parametrize(
    "wanted",
    [
        ("burst", "paced", "streams"),
        ("latency", "memory"),
        pytest.param(("recogniser",), marks=pytest.mark.full),
    ],
    ids=" ".join,
)
def test_a_short_run_measures_what_is_wanted(wanted, tmp_path: Path):
    """With a real gateway, whose broker stores every utterance, and real recognisers."""
    told = tmp_path / "bench.json"
    only = (f"--only={part}" for part in wanted)
    done = invoke(app, "--embedded", "--quick", *only, "--json", str(told))
    assert (done.returncode, done.stderr) == (0, "")
    parts: dict[str, set[str]] = {}
    for line in json.loads(told.read_text())["lines"]:
        parts.setdefault(line["part"], set()).update(line["figures"])
        medians = {name: each["median"] for name, each in line["figures"].items()}
        assert medians.get("ms/MB", 1) > 0
        assert medians.get("real-time factor", 1) > 0
    assert parts == {part: FIGURES[part] for part in wanted}
