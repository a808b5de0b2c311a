"""`speech load`: let many clients speak to a gateway, and report how it held.

Every client speaks recorded speech at the pace of speech, one utterance after another, and checks
each receipt against what it sent. What is spoken is stored: use a gateway of your own.
"""

import asyncio
from contextlib import AsyncExitStack
from enum import IntEnum
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from speech_lib.service.run import in_background
from speech_lib.telemetry import looplag

from speech_tools.command_line import (
    DEFAULT_OPS,
    DEFAULT_URL,
    GatewayUrl,
    exit_codes,
    fail,
    make_app,
    number,
)
from speech_tools.load.metrics import Watch
from speech_tools.load.report import Report, Spread
from speech_tools.load.run import Answer, Load, Plan, Tally
from speech_tools.protocol import client
from speech_tools.protocol.audio import SAMPLES, AudioError
from speech_tools.speakers import Kind, Tape
from speech_tools.terminal import Terminal

LOOK_SECONDS = 5.0


class Exit(IntEnum):
    """How the run ended."""

    ALL_ACCEPTED = 0
    SOME_NOT = 1
    USAGE = 2
    UNREACHABLE = 3


EPILOG = exit_codes(
    {
        Exit.ALL_ACCEPTED: "every utterance was accepted, with a receipt for the very samples",
        Exit.SOME_NOT: "some were refused or failed; the report says how many, by code",
        Exit.USAGE: "wrong usage: the options, the URL, or utterances longer than the gateway "
        "takes",
        Exit.UNREACHABLE: "no gateway was reached",
    }
)

_complain = partial(fail, "load")


class Screen:
    """A progress bar with what became of the utterances so far."""

    def __init__(self, seconds: float, console: Console) -> None:
        self._counts = dict.fromkeys(Kind, 0)
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TimeElapsedColumn(),
            TextColumn("of {task.total:g} s"),
            console=console,
            disable=not console.is_terminal,
            refresh_per_second=2,  # drawing takes time from the clients
        )
        self._task = self.progress.add_task(self._text(), total=seconds)

    def answer(self, answer: Answer) -> None:
        """Count one utterance."""
        self._counts[answer.kind] += 1
        elapsed = self.progress.tasks[self._task].elapsed
        self.progress.update(self._task, description=self._text(), completed=elapsed)

    def _text(self) -> str:
        return ", ".join(f"{kind} {count}" for kind, count in self._counts.items())


async def drive(load: Load, plan: Plan, ops_url: str) -> Report:
    """Run the load, and measure while it runs."""
    watch, own_lags = Watch(ops_url), list[float]()
    async with AsyncExitStack() as stack:
        await watch.look()
        in_background(watch.run(LOOK_SECONDS), stack)
        in_background(looplag.measure(own_lags.append), stack)
        tally = await load.run()
    await watch.look()
    return report(plan, tally, watch, own_lags)


def report(plan: Plan, tally: Tally, watch: Watch, own_lags: list[float]) -> Report:
    """Put together what was seen from both sides."""
    return Report(
        clients=plan.clients,
        seconds=plan.seconds,
        utterance_seconds=plan.utterance_seconds,
        accepted=tally.accepted,
        refused=tally.refused,
        failed=tally.failed,
        accepted_after_ms=Spread.of_values(tally.waits),
        loop_lag_ms=Spread.of_histogram(watch.lag),
        own_loop_lag_ms=Spread.of_values(own_lags),
        memory_bytes=watch.memory,
    )


def run(plan: Plan, url: str, ops_url: str, json_file: Path | None) -> Exit:
    """Put on the load, print the report, and return the exit code."""
    console = Terminal()
    screen = Screen(plan.seconds, console)
    try:
        load = Load(client.check_url(url, {}), plan, Tape.of(SAMPLES), screen.answer)
        if json_file is not None:
            json_file.touch()  # rather now than after the run
    except (AudioError, OSError, client.WrongUrl) as error:
        return _complain(Exit.USAGE, str(error))
    try:
        with screen.progress:
            result = asyncio.run(drive(load, plan, ops_url))
    except client.StreamError as error:
        too_long = isinstance(error, client.TooLong)
        return _complain(Exit.USAGE if too_long else Exit.UNREACHABLE, str(error))
    console.print(result.table())
    if json_file is not None:
        json_file.write_text(result.json(), encoding="utf-8")
    return Exit.ALL_ACCEPTED if result.all_accepted else Exit.SOME_NOT


app = make_app()


@app.command(epilog=EPILOG)
def main(
    clients: Annotated[int, typer.Option(min=1, max=1000, help="how many speak at once")] = 10,
    seconds: Annotated[
        float,
        typer.Option(
            min=1, max=86_400, callback=number, help="how long; what has begun is finished"
        ),
    ] = 60,
    utterance_seconds: Annotated[
        float, typer.Option(min=0.1, max=60, callback=number, help="how long each utterance lasts")
    ] = 5,
    url: GatewayUrl = DEFAULT_URL,
    ops: Annotated[
        str,
        typer.Option(envvar="GATEWAY_OPS_URL", help="its operations port, for the lag of its loop"),
    ] = DEFAULT_OPS,
    json_file: Annotated[
        Path | None, typer.Option("--json", dir_okay=False, help="write the report there, too")
    ] = None,
) -> None:
    """Let many clients speak at once, and report on it.

    What they speak is stored: use a gateway of your own.
    """
    raise typer.Exit(run(Plan(clients, seconds, utterance_seconds), url, ops, json_file))
