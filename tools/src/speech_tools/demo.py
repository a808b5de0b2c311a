"""Show the whole pipeline on this machine: a recording goes in, its text comes out.

`scripts/demo` makes the environment and runs this. Broker, registry, gateway and recogniser run
as child processes on free ports for as long as it takes, and are gone afterwards.
"""

import asyncio
import signal
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer
from rich.table import Table
from speech_lib.events import TextRecognizedEvent
from speech_lib.kafka.consumer import RecordConsumer
from speech_lib.kafka.records import ReceivedRecord
from speech_lib.kafka.registry import EventDeserializer, SchemaRegistry
from speech_lib.kafka.settings import KafkaSettings

from speech_tools import client, stack
from speech_tools.audio import SAMPLES, AudioError, Recording, load
from speech_tools.screen import Screen
from speech_tools.terminal import Terminal, complain, say_lines

SAMPLE = SAMPLES / "go-forward-ten-meters.raw"
if TYPE_CHECKING:
    from speech_lib.testing.embedded import EmbeddedPipeline

AUDIO_TOPIC = "speech.audio.ingress"
TEXT_TOPIC = "speech.asr.text"
TOPICS = (AUDIO_TOPIC, TEXT_TOPIC, "speech.audio.ingress.dlq")
TEXT_TIMEOUT_SECONDS = 60.0

console = Terminal(soft_wrap=True)


class DemoError(Exception):
    """The demo did not get its transcript; the text is the one line for the user."""


@contextmanager
def pipeline(log_dir: Path) -> Iterator[tuple["EmbeddedPipeline", str]]:
    """Run everything; yields broker and registry, and the gateway's URL, once all are ready."""
    from speech_lib.testing.embedded import EmbeddedPipeline  # noqa: PLC0415 - not in an image

    with ExitStack() as running:
        with console.status("starting broker, schema registry, recogniser and gateway …"):
            started = time.monotonic()
            kafka = running.enter_context(EmbeddedPipeline(TOPICS))
            running.enter_context(stack.recogniser(kafka, log_dir))
            gateway = running.enter_context(stack.gateway(kafka, log_dir))
        console.say(
            f"broker, schema registry, recogniser and gateway are ready "
            f"({time.monotonic() - started:.1f} s)"
        )
        yield kafka, gateway.url


def speak(url: str, recording: Recording) -> tuple[client.Outcome, int]:
    """Stream the recording at the pace of speech; return the outcome and when it came."""
    screen = Screen(as_json=False)
    screen.expect(recording)
    with screen.progress:
        outcome = asyncio.run(client.stream(url, recording.pcm, paced=True, hooks=screen.hooks()))
    answered_ms = time.time_ns() // 1_000_000
    screen.closed(outcome)
    if outcome.final["status"] != "accepted" or not outcome.receipt_matches:
        raise DemoError("the gateway did not store the recording as it was sent")
    return outcome, answered_ms


def records_of(kafka: "EmbeddedPipeline", correlation_id: str) -> dict[str, ReceivedRecord]:
    """Wait for the records of one utterance, on both topics."""
    consumer = RecordConsumer(
        KafkaSettings(bootstrap_servers=kafka.bootstrap_servers),
        group_id=f"demo-{uuid.uuid4()}",
        topics=[AUDIO_TOPIC, TEXT_TOPIC],
        client_id="demo",
    )
    found: dict[str, ReceivedRecord] = {}
    deadline = time.monotonic() + TEXT_TIMEOUT_SECONDS
    with closing(consumer):
        while len(found) < 2 and time.monotonic() < deadline:  # noqa: PLR2004 - two topics
            for record in consumer.poll(0.5):
                if record.key.decode() == correlation_id:
                    found[record.topic] = record
    if len(found) < 2:  # noqa: PLR2004
        missing = {AUDIO_TOPIC, TEXT_TOPIC} - found.keys()
        raise DemoError(f"no record on {', '.join(sorted(missing))} in time")
    return found


def hops(audio: Mapping[str, str], text: Mapping[str, str], answered_ms: int) -> Table:
    """Make the table of how long each hop took, by the times in the records' headers."""
    at = {name: int(audio[name]) for name in ("handshake_ms", "first_audio_ms", "ended_ms")}
    at |= {name: int(text[name]) for name in ("fetched_ms", "recognised_ms")}
    table = Table("hop", "from", "to", title="how long each hop took", title_justify="left")
    table.add_column("ms", justify="right")
    for hop, begin, end, took in (
        ("opening", "handshake", "first audio", at["first_audio_ms"] - at["handshake_ms"]),
        ("speaking", "first audio", "done", at["ended_ms"] - at["first_audio_ms"]),
        ("storing", "done", "receipt and close at the client", answered_ms - at["ended_ms"]),
        ("queueing", "done", "fetched by the recogniser", at["fetched_ms"] - at["ended_ms"]),
        ("recognising", "fetched", "recognised", at["recognised_ms"] - at["fetched_ms"]),
        ("in all", "done", "recognised", at["recognised_ms"] - at["ended_ms"]),
    ):
        table.add_row(hop, begin, end, str(took))
    return table


def show(file: Path, log_dir: Path) -> None:
    """Run the demo on one recording."""
    recording = load(file)
    console.say(f"speaking {file.name}")
    with pipeline(log_dir) as (kafka, url):
        outcome, answered_ms = speak(url, recording)
        records = records_of(kafka, outcome.final["correlation_id"])
        with closing(SchemaRegistry(kafka.registry_url)) as registry:
            event = EventDeserializer(registry, TextRecognizedEvent).decode(
                records[TEXT_TOPIC].value
            )
    console.print(hops(records[AUDIO_TOPIC].headers, records[TEXT_TOPIC].headers, answered_ms))
    said = event.payload.text or "(no speech)"
    console.say(f"correlation id: {event.correlation_id}")
    console.say(f"transcript: {said}", style="bold")


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(
    file: Annotated[
        Path, typer.Argument(help="WAV, FLAC, Ogg …, or headerless PCM16, 16 kHz, mono")
    ] = SAMPLE,
) -> None:
    """Speak FILE into the pipeline, here and now, and print what comes out."""
    try:
        from speech_lib.testing.embedded import EmbeddedError  # noqa: PLC0415 - not in an image
    except ModuleNotFoundError:
        _fail(2, "the embedded broker is not installed here: run it in a checkout, scripts/demo")
    signal.signal(signal.SIGTERM, _interrupt)
    with tempfile.TemporaryDirectory(prefix="speech-demo-") as directory:
        try:
            show(file, Path(directory))
        except AudioError as error:
            _fail(2, str(error))
        except client.TooLong as error:
            _fail(2, f"{file}: {error}")
        except (DemoError, EmbeddedError, stack.StackError, client.StreamError) as error:
            say_lines(stack.last_lines(Path(directory)))
            _fail(1, str(error))


def _fail(code: int, line: str) -> NoReturn:
    complain("demo", line)
    raise typer.Exit(code)


def _interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt
