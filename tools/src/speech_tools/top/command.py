"""`speech top`: watch both services live, straight from their operations ports.

It needs no Prometheus. docs/operations.md explains the metrics, docs/runbook.md says what to do.
"""

import asyncio
from contextlib import nullcontext
from dataclasses import asdict
from datetime import UTC, datetime
from enum import IntEnum
from typing import Annotated

import aiohttp
import typer
from pydantic import TypeAdapter, ValidationError
from rich.live import Live
from speech_lib.service.setting_types import HttpUrl

from speech_tools.command_line import DEFAULT_OPS, INTERRUPTED, exit_codes, make_app, number
from speech_tools.terminal import Terminal, json_text
from speech_tools.top.figures import History, Measure, gateway, recogniser
from speech_tools.top.fleet import fleet_json
from speech_tools.top.look import look, replicas
from speech_tools.top.screen import Frame, Service

DEFAULT_ASR = "http://localhost:8002"
PIPED_WIDTH = 100
MIN_WIDTH = 80


class Exit(IntEnum):
    """How it ended."""

    SHOWN = 0
    NOT_READY = 1
    USAGE = 2


EPILOG = exit_codes(
    {
        Exit.SHOWN: "with --once: all replicas of both services are ready",
        Exit.NOT_READY: "with --once: one of them is not, or cannot be reached",
        Exit.USAGE: "wrong usage",
        INTERRUPTED: "ended by Ctrl-C, as it always is without --once",
    }
)


class Watched:
    """One service, whose replicas come and go."""

    def __init__(self, name: str, url: str, measure: Measure) -> None:
        self._name, self._url, self._measure = name, url, measure
        self._replicas: dict[str, History] = {}

    async def look(self, session: aiohttp.ClientSession) -> None:
        """Look at all replicas at once; those that have gone are forgotten."""
        urls = await replicas(self._url)
        looks = await asyncio.gather(*(look(session, url) for url in urls))
        known = self._replicas
        self._replicas = {url: known.get(url) or History(self._measure) for url in urls}
        for history, seen in zip(self._replicas.values(), looks, strict=True):
            history.add(seen)

    @property
    def service(self) -> Service:
        """What is now."""
        return Service(self._name, self._url, self._replicas)


class Top:
    """Both services, looked at again and again."""

    def __init__(self, gateway_url: str, asr_url: str) -> None:
        self._watched = (
            Watched("gateway", gateway_url, gateway),
            Watched("recogniser", asr_url, recogniser),
        )

    async def look(self, session: aiohttp.ClientSession) -> None:
        """Look at both at once."""
        await asyncio.gather(*(each.look(session) for each in self._watched))

    @property
    def all_ready(self) -> bool:
        """Whether all replicas of both were ready at the last look."""
        return all(now.state.ready for each in self._watched for now in each.service.now)

    def frame(self) -> Frame:
        """Return what is now, for people."""
        return Frame(tuple(each.service for each in self._watched), datetime.now(UTC))

    def json(self) -> str:
        """Return what is now, for programs: under a service's name its first replica."""
        services = [each.service for each in self._watched]
        firsts = {each.name: asdict(each.now[0]) for each in services}
        fleet = {each.name: fleet_json(tuple(each.replicas), each.now) for each in services}
        at = datetime.now(UTC).isoformat(timespec="milliseconds")
        return json_text({"at": at, **firsts, "fleet": fleet})


class Display:
    """Where the frames go. A terminal is redrawn; otherwise they follow each other."""

    def __init__(self, *, as_json: bool, once: bool) -> None:
        self._as_json = as_json
        self._console = Terminal()
        if not self._console.is_terminal:
            self._console.width = PIPED_WIDTH
        self._console.width = max(self._console.width, MIN_WIDTH)
        redrawn = self._console.is_terminal and not as_json and not once
        self._live = (
            Live(console=self._console, auto_refresh=False, screen=True) if redrawn else None
        )
        self.shown = self._live or nullcontext()

    def show(self, top: Top) -> None:
        """Show what is now."""
        if self._as_json:
            print(top.json(), flush=True)
        elif self._live:
            self._live.update(top.frame(), refresh=True)
        else:
            self._console.print(top.frame())


async def watch(top: Top, display: Display, interval: float, *, once: bool) -> Exit:
    """Look every so many seconds until cancelled; with `once` twice, as rates need two looks."""
    async with aiohttp.ClientSession() as session:
        await top.look(session)
        while True:
            if not once:
                display.show(top)
            await asyncio.sleep(interval)
            await top.look(session)
            if once:
                display.show(top)
                return Exit.SHOWN if top.all_ready else Exit.NOT_READY


def _url(text: str) -> str:
    try:
        return TypeAdapter(HttpUrl).validate_python(text)
    except ValidationError as error:
        raise typer.BadParameter(error.errors()[0]["msg"]) from None


app = make_app()


@app.command(epilog=EPILOG)
def main(
    gateway: Annotated[
        str,
        typer.Option(envvar="GATEWAY_OPS_URL", callback=_url, help="the gateway's operations port"),
    ] = DEFAULT_OPS,
    asr: Annotated[
        str,
        typer.Option(envvar="ASR_OPS_URL", callback=_url, help="the recogniser's operations port"),
    ] = DEFAULT_ASR,
    interval: Annotated[
        float,
        typer.Option(min=0.1, max=60, callback=number, help="seconds between two looks"),
    ] = 1.0,
    once: Annotated[  # noqa: FBT002 - how typer declares a switch
        bool, typer.Option("--once", help="show one frame, of two looks, and end")
    ] = False,
    as_json: Annotated[  # noqa: FBT002 - how typer declares a switch
        bool, typer.Option("--json", help="print one JSON object a line for each look")
    ] = False,
) -> None:
    """Watch the metrics of gateways and recognisers, live.

    A host name with several addresses is a service with several replicas: a line for each, and
    one for their sum.
    """
    display = Display(as_json=as_json, once=once)
    with display.shown:
        code = asyncio.run(watch(Top(gateway, asr), display, interval, once=once))
    raise typer.Exit(code)
