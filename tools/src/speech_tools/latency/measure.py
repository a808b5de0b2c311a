"""Measure a pipeline as the options of `latency.py` say: where it is, what to speak, the report."""

import asyncio
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path

from speech_lib.errors import SchemaNotFound
from speech_lib.events import TextRecognizedEvent
from speech_lib.kafka.registry import EventDeserializer, SchemaRegistry

from speech_tools import answers, client
from speech_tools.audio import SAMPLES, load
from speech_tools.environment import PipelineEnvironment
from speech_tools.latency import report as latency_report
from speech_tools.latency import stack as latency_stack
from speech_tools.latency.report import Report, Settings
from speech_tools.latency.result import Result, result
from speech_tools.latency.run import Plan, Run, Utterance
from speech_tools.latency.screen import Screen
from speech_tools.latency.stack import Place
from speech_tools.load.clients import Tape
from speech_tools.machine import load_average, this_machine
from speech_tools.stack import StackError, last_lines
from speech_tools.terminal import say_lines
from speech_tools.trace import tracing


class Pace(StrEnum):
    """How fast is spoken."""

    REALTIME = "realtime"
    FAST = "fast"


@dataclass(frozen=True, slots=True)
class Options:
    """What to measure, and where.

    Attributes:
        count: How many utterances to measure.
        warm_up: How many before those.
        seconds: How long each is.
        pace: How fast it is spoken.
        clients: How many speak at once.
        patience_seconds: How long a text may take.
        audio: What to speak; nothing for the samples.
        embedded: Whether to run a pipeline for it; then none of what follows counts.
        url: Of the gateway.
        servers: The brokers.
        registry: The schema registry's URL.
        engine: What recognises there.
        note: For the report.
    """

    count: int
    warm_up: int
    seconds: float
    pace: Pace
    clients: int
    patience_seconds: float
    audio: Path | None
    embedded: bool
    url: str
    servers: str
    registry: str
    engine: str
    note: str

    def plan(self) -> Plan:
        """Return what to speak, the warm-up included."""
        return Plan(
            self.count + self.warm_up,
            self.seconds,
            self.pace is Pace.REALTIME,
            self.clients,
            self.patience_seconds,
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
        limits = ({name: each[name] for name in answers.LIMITS} for each in told)
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


def measured(options: Options) -> tuple[Report, Result]:
    """Speak all utterances and return the report, and the waits that it is made of.

    Raises:
        AudioError: What to speak cannot be read.
        StreamError: There is no gateway, or it does not take such utterances.
        ConfigError: The environment is wrong.
        BrokerUnavailable, TopicMissing: Broker or topic cannot be used.
        RegistryUnavailable, SchemaNotFound, SchemaRefused: The registry cannot be used.
        StackError: A pipeline of our own did not start.
    """
    tape = options.tape()
    machine, at = this_machine(), datetime.now(UTC)
    with place_of(options) as place, _decoder(place) as decode:
        plan = options.plan()
        with Screen(plan.count) as screen:
            run = Run(place.url, plan, tape, place.topics, screen.ended)
            utterances = asyncio.run(run.run(place.kafka))
        found = result(utterances, options.warm_up, place.topics, decode)
    report = Report(
        format="speech-latency/1",
        measured_at=at.isoformat(timespec="seconds"),
        note=options.note,
        machine=machine,
        settings=options.settings(place, utterances),
        measured=len(found.waits),
        hops=latency_report.figures(found.waits.values()),
        slowest=latency_report.slowest(found.waits),
        lost=found.lost,
        load_average_after=load_average(),
    )
    return report, found


@contextmanager
def _decoder(place: Place) -> Iterator[tracing.Decode]:
    """Yield what reads texts; a registry that is away is noticed here, not after the run."""
    with closing(SchemaRegistry(place.registry_url)) as registry:
        decoder = EventDeserializer(registry, TextRecognizedEvent)
        with suppress(SchemaNotFound):  # texts may have been written with another version
            decoder.warm_up(place.topics.text, auto_register=False)
        yield decoder.decode


@contextmanager
def place_of(options: Options) -> Iterator[Place]:
    """Yield the pipeline to measure; one of our own is gone afterwards."""
    if not options.embedded:
        client.check_url(options.url, {})
        given = PipelineEnvironment.read(options.servers, options.registry)
        yield Place(
            latency_stack.RUNNING,
            options.engine,
            options.url,
            given.kafka(),
            given.schema_registry_url,
            given.topics(),
        )
        return
    with tempfile.TemporaryDirectory(prefix="speech-latency-") as directory:
        try:
            with latency_stack.embedded(Path(directory), options.clients) as place:
                yield place
        except StackError:
            say_lines(last_lines(Path(directory)))
            raise
