"""`speech bench`: what the gateway costs beside a bare `websockets` server, alternating in one run.

It starts the servers itself. The gateway stores what it hears on topics of the bench's own, which
it makes where they are missing.
"""

import asyncio
import resource
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import astuple, dataclass, replace
from datetime import UTC, datetime
from enum import IntEnum
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from speech_lib.errors import BrokerUnavailable, ConfigError, TopicMissing
from speech_lib.kafka.admin import HOUR_MS, TopicSpec, ensure_topics
from speech_lib.kafka.settings import KafkaSettings

from speech_tools import stack
from speech_tools.bench import page
from speech_tools.bench.clients import BenchError
from speech_tools.bench.page import PageError
from speech_tools.bench.parts import QUICK, USUAL, Bench, Part, Plan, measured
from speech_tools.bench.result import Result
from speech_tools.bench.servers import OWN_TOPICS, RAW_TOPIC, SPEECH_TOPIC, require_gateway
from speech_tools.command_line import (
    DEFAULT_REGISTRY,
    DEFAULT_SERVERS,
    RegistryUrl,
    Servers,
    end_on_sigterm,
    exit_codes,
    fail,
    make_app,
    silence_library,
)
from speech_tools.machine import load_average, this_machine
from speech_tools.terminal import Terminal, say_lines

TOPICS = (*astuple(OWN_TOPICS), RAW_TOPIC, SPEECH_TOPIC)
PARTITIONS = 3
"""Few enough that the gateway keeps none for recordings: the bench sends faster than speech."""
PARTITION_BYTES = 512 * 1024 * 1024


class Exit(IntEnum):
    """How the run ended."""

    MEASURED = 0
    FAILED = 1
    USAGE = 2


EPILOG = exit_codes(
    {
        Exit.MEASURED: "everything was measured, and every utterance was accepted",
        Exit.FAILED: "a server did not start, or did not accept an utterance; no figures",
        Exit.USAGE: "wrong usage, a file that cannot be written, brokers that are out of reach, "
        "or what the options need is not installed",
    },
    "Figures are medians of the rounds; --json and --write have the lowest and the highest, too. "
    "Processor time is that of the server's whole process: of the gateway also what it does beyond "
    "a bare server, as WAV, SHA-256, Avro and librdkafka's threads. Columns named loop have the "
    "thread of its event loop alone. What is spoken is stored for an hour, on topics named "
    "speech.bench.",
)
_complain = partial(fail, "bench")


@dataclass(frozen=True, slots=True)
class Running:
    """Brokers and a registry that are there. `stack.Addresses` asks for these names."""

    bootstrap_servers: str
    registry_url: str


@dataclass(frozen=True, slots=True)
class Output:
    """Where the result goes, beside the terminal: a file of JSON, and a page."""

    json_file: Path | None
    page: Path | None

    def check(self) -> None:
        """Fail before the run rather than after it.

        Raises:
            OSError, PageError, ImportError: Something cannot be written.
        """
        if self.json_file is not None:
            self.json_file.touch()
        if self.page is not None:
            page.check(self.page)

    def write(self, result: Result) -> None:
        """Write the result wherever it is wanted."""
        if self.json_file is not None:
            self.json_file.write_text(result.json(), encoding="utf-8")
        if self.page is not None:
            page.write(self.page, result)


@contextmanager
def _embedded() -> Iterator[stack.Addresses]:
    stack.require_embedded()
    from speech_lib.testing import embedded  # noqa: PLC0415 - not in an image

    with ExitStack() as running:
        try:
            kafka = running.enter_context(embedded.EmbeddedPipeline(TOPICS, PARTITIONS))
        except embedded.EmbeddedError as error:
            raise stack.StackError(str(error)) from error
        yield kafka


@contextmanager
def _running(kafka: Running) -> Iterator[stack.Addresses]:
    """Make the topics there.

    Raises:
        BrokerUnavailable, TopicMissing, ConfigError: They cannot be made.
    """
    specs = [
        TopicSpec(name, HOUR_MS, partitions=PARTITIONS, retention_bytes=PARTITION_BYTES)
        for name in TOPICS
    ]
    ensure_topics(KafkaSettings(bootstrap_servers=kafka.bootstrap_servers), specs)
    yield kafka


def run(plan: Plan, running: Running | None, output: Output) -> Exit:
    """Measure, print the tables, and return the exit code. Without `running`, embed a broker."""
    silence_library()
    _allow_many_connections()
    console = Terminal()
    with tempfile.TemporaryDirectory() as folder:
        try:
            output.check()
            require_gateway()
            place = _running(running) if running else _embedded()
            result = _measure(plan, place, "running" if running else "embedded", Path(folder))
        except _UNUSABLE as error:
            return _complain(Exit.USAGE, str(error))
        except (stack.StackError, BenchError) as error:
            say_lines(stack.last_lines(Path(folder)))
            return _complain(Exit.FAILED, str(error))
    for table in result.tables():
        console.print(table)
    console.say(result.circumstances())
    output.write(result)
    return Exit.MEASURED


_UNUSABLE = (
    *(stack.NotInstalled, OSError, PageError, ImportError),
    *(BrokerUnavailable, TopicMissing, ConfigError),
)


def _measure(
    plan: Plan, place: AbstractContextManager[stack.Addresses], broker: str, logs: Path
) -> Result:
    machine, date = this_machine(), datetime.now(UTC).isoformat(timespec="seconds")
    errors = Terminal(stderr=True)
    with place as kafka, errors.status("") as status:
        lines = asyncio.run(measured(Bench(kafka, plan, logs, status.update)))
    return Result(broker, date, plan.rounds, plan.is_quick, machine, load_average(), lines)


def _allow_many_connections() -> None:
    """Raise the limit on open files, which the servers inherit, as far as this process may."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


Only = Annotated[list[Part] | None, typer.Option(help="measure this part alone")]
Rounds = Annotated[
    int | None, typer.Option(min=1, max=100, help="how often each has its turn", show_default="3")
]
Streams = Annotated[
    list[int] | None,
    typer.Option(
        min=1, max=2000, help="live streams at once (part streams)", show_default="100, 500, 1000"
    ),
]
Seconds = Annotated[
    float | None, typer.Option(min=1, max=40, help="how long each speaks", show_default="10")
]
Quick = Annotated[bool, typer.Option("--quick", help="a rough look in a minute")]
Embedded = Annotated[
    bool, typer.Option("--embedded", help="with a broker of its own, not Apache Kafka")
]
JsonFile = Annotated[
    Path | None, typer.Option("--json", dir_okay=False, help="write the result there, too")
]
Write = Annotated[
    Path | None, typer.Option(dir_okay=False, help="put tables and picture into this page, too")
]

app = make_app()


@app.command(epilog=EPILOG)
def main(  # noqa: PLR0913 - each is an option
    *,
    only: Only = None,
    rounds: Rounds = None,
    streams: Streams = None,
    seconds: Seconds = None,
    quick: Quick = False,
    embedded: Embedded = False,
    bootstrap_servers: Servers = DEFAULT_SERVERS,
    registry: RegistryUrl = DEFAULT_REGISTRY,
    json_file: JsonFile = None,
    write: Write = None,
) -> None:
    """Measure what the gateway costs beside a bare server."""
    end_on_sigterm()
    usual = QUICK if quick else USUAL
    plan = replace(
        usual,
        parts=tuple(only or Part),
        rounds=rounds or usual.rounds,
        streams=tuple(streams or usual.streams),
        seconds=seconds or usual.seconds,
    )
    running = None if embedded else Running(bootstrap_servers, registry)
    raise typer.Exit(run(plan, running, Output(json_file, write)))
