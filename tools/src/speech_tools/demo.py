"""`speech demo`: run a whole pipeline on this machine; a recording goes in, its text comes out.

scripts/demo makes the environment and runs this command. The parts of the pipeline are child
processes on free ports, and stop at the end.
"""

import asyncio
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from enum import IntEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from speech_lib.events import TextRecognizedEvent
from speech_lib.kafka.consumer import RecordConsumer
from speech_lib.kafka.records import ReceivedRecord
from speech_lib.kafka.registry import EventDeserializer, SchemaRegistry
from speech_lib.kafka.settings import KafkaSettings

from speech_tools import stack
from speech_tools.command_line import end_on_sigterm, exit_codes, fail, make_app
from speech_tools.models import manifest
from speech_tools.models.fetching import fetch, first_folder
from speech_tools.models.manifest import ModelError
from speech_tools.models.screen import progress
from speech_tools.protocol import client
from speech_tools.protocol.audio import SAMPLES, AudioError, Recording, load
from speech_tools.screen import Screen
from speech_tools.terminal import Terminal, complain, say_lines
from speech_tools.topics import OWN

SAMPLE = SAMPLES / "go-forward-ten-meters.raw"
TEXT_TIMEOUT_SECONDS = 60.0
MODEL = "tiny.en"
WITHOUT_A_MODEL = "PocketSphinx listens instead, which gets four words of ten wrong"

console = Terminal(soft_wrap=True)


class DemoError(Exception):
    """The demo did not get its transcript. The text is the one line for the user."""


def engine() -> Mapping[str, str]:
    """Return the settings of the recogniser; get its model first where it is not here yet."""
    model, folder = manifest.model(MODEL), first_folder()
    try:
        with progress(model) as on_bytes:
            fetch(model, folder, on_bytes)
    except ModelError as error:
        complain("demo", f"{error}; {WITHOUT_A_MODEL}")
        return {"ASR_ENGINE": "pocketsphinx"}
    return {"ASR_ENGINE": model.engine, "ASR_MODEL": str(folder.absolute() / model.name)}


@contextmanager
def pipeline(
    log_dir: Path, engine_settings: Mapping[str, str]
) -> Iterator[tuple[stack.Addresses, str]]:
    """Run everything; yield where broker and registry are, and the gateway's URL."""
    with ExitStack() as running:
        with console.status("starting broker, schema registry, recogniser and gateway …"):
            started = time.monotonic()
            kafka, gateway = running.enter_context(stack.pipeline(log_dir, engine=engine_settings))
        console.say(
            f"broker, schema registry, recogniser and gateway are ready "
            f"({time.monotonic() - started:.1f} s)"
        )
        yield kafka, gateway.url


def speak(url: str, recording: Recording) -> tuple[client.Outcome, int]:
    """Send the recording at the pace of speech. Return the outcome, and when it came."""
    screen = Screen()
    screen.expect(recording)
    with screen.progress:
        wanted = client.Wanted(results=True)
        speaking = client.stream(
            url, recording.pcm, paced=True, wanted=wanted, hooks=screen.hooks()
        )
        outcome = asyncio.run(speaking)
    answered_ms = time.time_ns() // 1_000_000
    screen.closed(outcome)
    if outcome.final["status"] != "accepted" or not outcome.receipt_matches:
        raise DemoError("the gateway did not store the recording as it was sent")
    return outcome, answered_ms


def records_of(kafka: stack.Addresses, correlation_id: str) -> dict[str, ReceivedRecord]:
    """Wait for the records of one utterance, on both topics."""
    consumer = RecordConsumer(
        KafkaSettings(bootstrap_servers=kafka.bootstrap_servers),
        group_id=f"demo-{uuid.uuid4()}",
        topics=[OWN.audio, OWN.text],
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
        missing = {OWN.audio, OWN.text} - found.keys()
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
    stack.require_embedded()
    settings = engine()
    with pipeline(log_dir, settings) as (kafka, url):
        console.say(f"speaking {file.name}")
        outcome, answered_ms = speak(url, recording)
        records = records_of(kafka, outcome.final["correlation_id"])
        with closing(SchemaRegistry(kafka.registry_url)) as registry:
            event = EventDeserializer(registry, TextRecognizedEvent).decode(records[OWN.text].value)
    console.print(hops(records[OWN.audio].headers, records[OWN.text].headers, answered_ms))
    said = event.payload.text or "(no speech)"
    console.say(f"correlation id: {event.correlation_id}")
    console.say(f"transcript: {said}", style="bold")


def show_page(log_dir: Path, port: int) -> None:
    """Run the pipeline with a page to speak to it, until Ctrl-C or SIGTERM."""
    stack.require_embedded()
    with pipeline(log_dir, engine()) as (_, url):
        asyncio.run(_serve(url, port))


async def _serve(url: str, port: int) -> None:
    from speech_tools.page import serving  # noqa: PLC0415 - the other demo needs no HTTP server

    try:
        async with serving(url, port) as address:
            console.say(f"open {address} and speak; Ctrl-C ends it", style="bold")
            await asyncio.Event().wait()
    except OSError as error:
        raise DemoError(f"cannot serve the page on port {port}: {error.strerror}") from None


class Exit(IntEnum):
    """How it ended."""

    FINE = 0
    FAILED = 1
    USAGE = 2


EPILOG = exit_codes(
    {
        Exit.FINE: "the text has come out",
        Exit.FAILED: "a part of the pipeline did not do its work; the last line says which",
        Exit.USAGE: "wrong usage: the file, or no pipeline can be started here",
    }
)

app = make_app()


@app.command(epilog=EPILOG)
def main(
    file: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="WAV, FLAC, Ogg …, or headerless PCM16, 16 kHz, mono"),
    ] = SAMPLE,
    web: Annotated[  # noqa: FBT002 - how typer declares a switch
        bool, typer.Option("--web", help="serve a page to speak to it, until Ctrl-C")
    ] = False,
    port: Annotated[int, typer.Option(min=0, max=65535, help="of the page, with --web")] = 8080,
) -> None:
    """Run a whole pipeline here, and speak a recording into it.

    It needs neither Docker nor Java. Everything that it starts is gone at its end.
    """
    end_on_sigterm()
    with tempfile.TemporaryDirectory(prefix="speech-demo-") as directory:
        raise typer.Exit(run(file, Path(directory), port if web else None))


def run(file: Path, log_dir: Path, port: int | None) -> Exit:
    """Show it, or the page on a port, and return the exit code."""
    try:
        show(file, log_dir) if port is None else show_page(log_dir, port)
    except (AudioError, stack.NotInstalled) as error:
        return fail("demo", Exit.USAGE, str(error))
    except client.TooLong as error:
        return fail("demo", Exit.USAGE, f"{file}: {error}")
    except (DemoError, stack.StackError, client.StreamError) as error:
        say_lines(stack.last_lines(log_dir))
        return fail("demo", Exit.FAILED, str(error))
    return Exit.FINE
