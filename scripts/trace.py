"""Find one utterance on its topics by its correlation id, and show every hop of its way.

    uv run scripts/trace.py CORRELATION_ID [--bootstrap-servers HOST:PORT] [--registry URL] [--json]

The exit code says whether the text is there; `--help` lists the codes.
"""

import json
import logging
import os
import sys
import uuid
from contextlib import closing
from datetime import UTC, datetime
from enum import IntEnum
from typing import Annotated

import typer
from pipeline_tools import search, tracing
from pydantic import Field
from rich.console import Console
from rich.table import Table
from speech_lib.config import KafkaEnvironment
from speech_lib.errors import (
    BrokerUnavailable,
    ConfigError,
    EventError,
    RegistryUnavailable,
    SchemaNotFound,
    SchemaRefused,
    TopicMissing,
)
from speech_lib.events import TextRecognizedEvent
from speech_lib.registry import EventDeserializer, SchemaRegistry
from speech_lib.setting_types import HttpUrl, Topic

DEFAULT_SERVERS = "localhost:29092"
DEFAULT_REGISTRY = "http://localhost:8081"
MIN_WIDTH = 100

EPILOG = """\
Exit codes:

0  the text is there

1  a hop is missing; the last line says which

2  wrong usage, or the broker or the schema registry cannot be asked

The variables KAFKA_SECURITY_PROTOCOL, KAFKA_SASL_… and KAFKA_SSL_CA_LOCATION say how to reach the
broker; TOPIC_AUDIO_INGRESS, TOPIC_ASR_TEXT and TOPIC_DEAD_LETTER where to look.
"""


class Exit(IntEnum):
    """What came of the search."""

    COMPLETE = 0
    MISSING = 1
    USAGE = 2


class TraceEnvironment(KafkaEnvironment):
    """What this script reads."""

    schema_registry_url: HttpUrl = Field(alias="SCHEMA_REGISTRY_URL")
    """Where the schema of the text is kept."""

    topic_dead_letter: Topic = Field("speech.audio.ingress.dlq", alias="TOPIC_DEAD_LETTER")
    """Topic of the records that cannot be processed."""

    def topics(self) -> tracing.Topics:
        """Return where to look."""
        return tracing.Topics(self.topic_audio_ingress, self.topic_asr_text, self.topic_dead_letter)


def settings(servers: str, registry: str) -> TraceEnvironment:
    """Read the environment; how a service logs is none of this script's business."""
    environ = {
        name: value for name, value in os.environ.items() if name.startswith(("KAFKA_", "TOPIC_"))
    }
    return TraceEnvironment.load(
        {**environ, "KAFKA_BOOTSTRAP_SERVERS": servers, "SCHEMA_REGISTRY_URL": registry}
    )


def follow(correlation_id: str, given: TraceEnvironment) -> tracing.Trace:
    """Find the records and put them in order."""
    topics = given.topics()
    records = search.find(
        given.kafka(),
        (topics.audio, topics.text, topics.dead_letter),
        correlation_id,
        lambda found: tracing.is_whole(found, topics),
    )
    with closing(SchemaRegistry(given.schema_registry_url)) as registry:
        decode = EventDeserializer(registry, TextRecognizedEvent).decode
        return tracing.trace(correlation_id, records, topics, decode)


def run(correlation_id: str, servers: str, registry: str, *, as_json: bool) -> Exit:
    """Trace, print, and return the exit code."""
    try:
        wanted = str(uuid.UUID(correlation_id))
    except ValueError:
        return _complain(Exit.USAGE, "expected a correlation id, as scripts/stream.py prints it")
    # What goes wrong is said in the one line below; librdkafka's own would stand beside it.
    logging.getLogger("speech_lib").addHandler(logging.NullHandler())
    try:
        found = follow(wanted, settings(servers, registry))
    except EventError as error:
        return _complain(Exit.MISSING, f"the record of the text cannot be read: {error}")
    except (ConfigError, BrokerUnavailable, TopicMissing) as error:
        return _complain(Exit.USAGE, str(error))
    except (RegistryUnavailable, SchemaNotFound, SchemaRefused) as error:
        return _complain(Exit.USAGE, f"the text cannot be decoded: {error}")
    if as_json:
        print(json.dumps(found.to_json()))
    else:
        show(found)
    return _complain(Exit.MISSING, found.missing.line) if found.missing else Exit.COMPLETE


def show(found: tracing.Trace) -> None:
    """Print a trace for people."""
    console = Console(highlight=False, markup=False, emoji=False)
    console.width = max(console.width, MIN_WIDTH)
    console.print(f"utterance {found.correlation_id}")
    if found.ended_by:
        console.print(f"ended by {_printable(found.ended_by)}")
    console.print(_table(found.hops))
    for result in found.results:
        said = _printable(result.text) or "(no speech)"
        console.print(f"text: {said}", style="bold")
        console.print(f"language {_printable(result.language)}, confidence {result.confidence:.2f}")
        if result.repeats:
            console.print(f"the same result was stored again: {result.repeats} times")


def _table(hops: tuple[tracing.Hop, ...]) -> Table:
    table = Table("hop", "time (UTC)", box=None, pad_edge=False, padding=(0, 3, 0, 0))
    for name in ("wait", "partition", "offset"):
        table.add_column(name, justify="right")
    table.add_column("topic")
    for hop in hops:
        wait = "" if hop.wait_ms is None else f"{hop.wait_ms / 1000:.3f} s"
        place = hop.place
        where = (str(place.partition), str(place.offset), place.topic) if place else ("", "", "")
        table.add_row(hop.name, _time(hop.at_ms), wait, *where)
    return table


def _time(at_ms: int | None) -> str:
    if at_ms is None:
        return "not known"
    at = datetime.fromtimestamp(at_ms / 1000, UTC)
    return f"{at:%Y-%m-%d %H:%M:%S}.{at_ms % 1000:03}"


def _printable(text: str) -> str:
    """Take out what would speak to the terminal: anyone may have written the record."""
    return "".join(each if each.isprintable() else "\ufffd" for each in text)


def _complain(code: Exit, line: str) -> Exit:
    print(f"trace: {_printable(line)}", file=sys.stderr)
    return code


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command(epilog=EPILOG)
def main(
    correlation_id: Annotated[str, typer.Argument(help="as the gateway's first message names it")],
    bootstrap_servers: Annotated[
        str, typer.Option(envvar="KAFKA_BOOTSTRAP_SERVERS", help="the Kafka brokers")
    ] = DEFAULT_SERVERS,
    registry: Annotated[
        str, typer.Option(envvar="SCHEMA_REGISTRY_URL", help="the schema registry")
    ] = DEFAULT_REGISTRY,
    as_json: Annotated[  # noqa: FBT002 - how typer declares a switch
        bool, typer.Option("--json", help="print one JSON object")
    ] = False,
) -> None:
    """Find the utterance with CORRELATION_ID on its topics and print every hop of its way."""
    raise typer.Exit(run(correlation_id, bootstrap_servers, registry, as_json=as_json))


if __name__ == "__main__":
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(130)
