"""Measure a pipeline as the options of `speech latency` say, and return the report."""

import asyncio
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from speech_lib.errors import SchemaNotFound
from speech_lib.events import TextRecognizedEvent
from speech_lib.kafka.registry import EventDeserializer, SchemaRegistry

from speech_tools.latency import report as latency_report
from speech_tools.latency import stack as latency_stack
from speech_tools.latency.options import Options, Where
from speech_tools.latency.report import Report
from speech_tools.latency.result import Result, result
from speech_tools.latency.run import Run
from speech_tools.latency.screen import Screen
from speech_tools.latency.stack import Place
from speech_tools.machine import load_average, this_machine
from speech_tools.stack import StackError, last_lines
from speech_tools.terminal import say_lines
from speech_tools.trace import tracing


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
    what, where = options.what, options.where
    tape = what.tape()
    machine, at = this_machine(), datetime.now(UTC)
    with place_of(where, what.clients) as place, _decoder(place) as decode:
        plan = what.plan()
        with Screen(plan.count) as screen:
            run = Run(place.url, plan, tape, place.topics, screen.ended)
            utterances = asyncio.run(run.run(place.kafka))
        found = result(utterances, what.warm_up, place.topics, decode)
    report = Report(
        format="speech-latency/1",
        measured_at=at.isoformat(timespec="seconds"),
        note=options.note,
        machine=machine,
        settings=what.settings(place, utterances),
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
def place_of(where: Where, clients: int) -> Iterator[Place]:
    """Yield the pipeline to measure. One that is started for it is stopped at the end."""
    if not where.embedded:
        yield where.place()
        return
    with tempfile.TemporaryDirectory(prefix="speech-latency-") as directory:
        try:
            with latency_stack.embedded(Path(directory), clients) as place:
                yield place
        except StackError:
            say_lines(last_lines(Path(directory)))
            raise
