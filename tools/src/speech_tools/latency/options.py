"""The options of `speech latency`, and what they mean: what to speak, where, and for whom.

Used by `latency.command`, which takes them, and by `latency.measure`.
"""

import re
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from speech_tools.command_line import GatewayUrl, RegistryUrl, Servers, number
from speech_tools.environment import PipelineEnvironment
from speech_tools.latency import stack as latency_stack
from speech_tools.latency.report import Settings
from speech_tools.latency.run import Plan, Utterance
from speech_tools.latency.stack import Place
from speech_tools.protocol import client, messages
from speech_tools.protocol.audio import SAMPLES, load
from speech_tools.speakers import Tape


class Pace(StrEnum):
    """How fast is spoken."""

    REALTIME = "realtime"
    FAST = "fast"


def _percent(text: str) -> float:
    """Return what `10%` means as a part."""
    if not re.fullmatch(r"[0-9]{1,4}(\.[0-9]{1,3})?%", text):
        raise typer.BadParameter(f"expected a percentage such as 10%, got {text!r}")
    return float(text.removesuffix("%")) / 100


Count = Annotated[int, typer.Option(min=1, max=100_000, help="utterances to measure")]
WarmUp = Annotated[
    int, typer.Option(min=0, max=1000, help="utterances before those, which do not count")
]
Seconds = Annotated[
    float, typer.Option(min=0.1, max=60, callback=number, help="how long each lasts")
]
Audio = Annotated[
    Path | None,
    typer.Option(help="recording to cut them from, over and over", show_default="samples/"),
]
PaceOption = Annotated[
    Pace, typer.Option(help="as it is spoken, or as fast as the gateway permits")
]
Clients = Annotated[int, typer.Option(min=1, max=100, help="how many speak at once")]
Patience = Annotated[
    float,
    typer.Option(
        min=1, max=600, callback=number, help="seconds from the receipt until a text is lost"
    ),
]
Embedded = Annotated[
    bool, typer.Option("--embedded", help="start a pipeline here, and measure that one")
]
Engine = Annotated[
    str, typer.Option(help="what recognises, for the report: a running pipeline does not tell")
]
Note = Annotated[str, typer.Option(help="what else to put into the report")]
Out = Annotated[
    Path | None, typer.Option(file_okay=False, help="folder for latency.json and latency.png")
]
Compare = Annotated[
    Path | None, typer.Option(dir_okay=False, help="latency.json of an earlier run")
]
Threshold = Annotated[
    float, typer.Option(parser=_percent, metavar="PERCENT", help="how much slower is too slow")
]
Floor = Annotated[
    float,
    typer.Option(min=0, max=60_000, callback=number, help="ms that are never too slow"),
]


@dataclass(frozen=True, slots=True)
class What:
    """What to speak, as the options of these names say."""

    count: Count
    warm_up: WarmUp
    seconds: Seconds
    audio: Audio
    pace: PaceOption
    clients: Clients
    patience: Patience

    def plan(self) -> Plan:
        """Return what to speak, the warm-up included."""
        return Plan(
            self.count + self.warm_up,
            self.seconds,
            self.pace is Pace.REALTIME,
            self.clients,
            self.patience,
        )

    def tape(self) -> Tape:
        """Return what to cut the utterances from.

        Raises:
            AudioError: It cannot be read.
        """
        return Tape.of(SAMPLES) if self.audio is None else Tape(load(self.audio).pcm)

    def settings(self, place: Place, utterances: list[Utterance]) -> Settings:
        """Return what has been measured, for the report."""
        told = (each.greeting["limits"] for each in utterances if each.greeting)
        limits = ({name: each[name] for name in messages.LIMITS} for each in told)
        return Settings(
            stack=place.kind,
            engine=place.engine,
            speech="samples" if self.audio is None else "file",
            seconds=self.seconds,
            pace=self.pace.value,
            count=self.count,
            warm_up=self.warm_up,
            clients=self.clients,
            limits=next(limits, {}),
        )


@dataclass(frozen=True, slots=True)
class Where:
    """Which pipeline to measure. None of the rest counts for one that is started for it."""

    embedded: Embedded
    url: GatewayUrl
    servers: Servers
    registry: RegistryUrl
    engine: Engine

    def place(self) -> Place:
        """Return the pipeline that runs there.

        Raises:
            WrongUrl, ConfigError: An address is not one.
        """
        client.check_url(self.url, {})
        given = PipelineEnvironment.read(self.servers, self.registry)
        return Place(
            latency_stack.RUNNING,
            self.engine,
            self.url,
            given.kafka(),
            given.schema_registry_url,
            given.topics(),
        )


@dataclass(frozen=True, slots=True)
class Options:
    """What to measure, where, and a note for the report."""

    what: What
    where: Where
    note: str
