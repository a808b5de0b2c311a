"""A long recording through `speech stream`: whole on the topic, whatever breaks on the way."""

import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

import numpy as np
import pytest
import soundfile
from speech_lib.events import AudioInputEvent
from speech_lib.kafka.registry import EventDeserializer
from speech_tools import stack
from support.recordings import clips
from support.topics import Topics

pytestmark = [pytest.mark.pipeline, pytest.mark.timeout(400)]
needs_kafka = pytest.mark.skipif(
    "KAFKA_BOOTSTRAP_SERVERS" not in os.environ,
    reason="needs Apache Kafka: the embedded broker keeps only the newest of large records",
)

BYTES_PER_SECOND = 32_000
WAV_HEADER_BYTES = 44
RUN_SECONDS = 300
SLOWLY = {"MAX_CHUNK_BYTES": "4096", "MAX_MESSAGES_PER_SECOND": "100"}
"""A whole utterance takes four seconds, so what breaks does so in its middle."""

Start = Callable[..., AbstractContextManager[stack.Gateway]]


def recording(seconds: float) -> bytes:
    """Return real speech of this length, with pauses of a third to a whole second in it."""
    noise = np.random.default_rng(1)
    pcm = bytearray()
    for number, clip in enumerate(itertools.cycle(clips())):
        pause = noise.normal(0, 20, 16_000 // (1 + number % 3))
        pcm += clip.samples + pause.astype("<i2").tobytes()
        if len(pcm) >= seconds * BYTES_PER_SECOND:
            return bytes(pcm[: int(seconds * BYTES_PER_SECOND)])
    raise AssertionError


@pytest.fixture
def start(pipeline, topics, logs) -> Start:
    """Return what starts a gateway, with further settings."""

    def gateway(**settings: str) -> AbstractContextManager[stack.Gateway]:
        return stack.gateway(pipeline, logs, {**topics.names, **settings})

    return gateway


@contextmanager
def streaming(file: Path, url: str, name: str, *more: str) -> "Iterator[subprocess.Popen[str]]":
    """Run it; it is killed if it is still there in the end."""
    options = ["--fast", "--json", "--url", url, "--client-ref", name, *more]
    with subprocess.Popen(  # noqa: S603 - our own command
        [sys.executable, "-m", "speech_tools", "stream", str(file), *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def rest(process: "subprocess.Popen[str]") -> tuple[list[dict[str, Any]], str]:
    """Wait for its end; return what it told since, and its complaints."""
    out, complaints = process.communicate(timeout=RUN_SECONDS)
    return [json.loads(line) for line in out.splitlines()], complaints


def on_the_topic(topics: Topics, name: str, last: str) -> dict[str, list[bytes]]:
    """Return the samples of each record under a name or its successors, by `client_ref`.

    `last` is the correlation id of what was stored last.
    """
    decoder = EventDeserializer(topics.registry, AudioInputEvent)
    found: dict[str, list[bytes]] = {}
    with topics.reader("TOPIC_AUDIO_INGRESS") as consumer:
        for _ in range(120):
            for record in consumer.poll(0.5):
                own = record.headers.get("client_ref", "")
                if own.split("-")[0] == name:
                    audio = decoder.decode(record.value).payload.audio_bytes
                    found.setdefault(own, []).append(audio[WAV_HEADER_BYTES:])
                if record.key.decode() == last:
                    return found
    raise AssertionError(f"{last} is not on the topic")


def joined(found: dict[str, list[bytes]]) -> bytes:
    """Return what a reader has that counts by name: of each one the longest."""
    numbers = sorted(found, key=lambda own: int(own.partition("-")[2] or 1))
    return b"".join(max(found[own], key=len) for own in numbers)


@needs_kafka
def test_ten_minutes_are_stored_and_heard_whole(start, pipeline, topics, logs, tmp_path, tiny_en):
    """Every receipt, every text, and the samples of all records joined are the file's."""
    pcm = recording(600)
    file = tmp_path / "long.flac"
    soundfile.write(file, np.frombuffer(pcm, "<i2"), 16_000, subtype="PCM_16")
    engine = {"ASR_ENGINE": "whisper", "ASR_MODEL": str(tiny_en)}
    settings = {"RESULTS": "on", "RESULT_TIMEOUT_SECONDS": "120"}
    with (
        start(**settings) as gateway,
        stack.recogniser(pipeline, logs, {**topics.names, **engine}),
        streaming(file, gateway.url, "whole", "--results") as process,
    ):
        told, complaints = rest(process)
    receipts = [each for each in told if "sha256" in each]
    texts = [each for each in told if "text" in each]
    found = on_the_topic(topics, "whole", receipts[-1]["correlation_id"])
    assert (process.returncode, complaints) == (0, "")
    assert [len(each) for each in found.values()] == [1] * len(receipts)
    assert joined(found) == pcm
    assert [each["correlation_id"] for each in texts] == [
        each["correlation_id"] for each in receipts
    ]
    assert all(each["text"] for each in texts)


def test_a_gateway_that_is_killed_loses_nothing(start, topics, tmp_path):
    """The utterance in whose middle it died is sent again, to another one at the same address."""
    pcm = recording(140)
    file = tmp_path / "long.raw"
    file.write_bytes(pcm)
    with ExitStack() as running:
        gateway, another = (running.enter_context(start(**SLOWLY)) for _ in range(2))
        cable = running.enter_context(Cable(gateway.url))
        process = running.enter_context(streaming(file, cable.url, "killed", "--verbose"))
        first = in_the_middle_of_the_second(process)
        cable.leads_to(another.url)
        gateway.process.signal(signal.SIGKILL)
        told, complaints = rest(process)
    found = on_the_topic(topics, "killed", told[-1]["correlation_id"])
    assert (process.returncode, joined(found)) == (0, pcm)
    check_doubles(found, [first, *told], complaints)
    assert [each["attempts"] for each in (first, *told)] == [1, 2, *[1] * (len(told) - 1)]


def in_the_middle_of_the_second(process: "subprocess.Popen[str]") -> dict[str, Any]:
    """Wait until the second utterance has begun; return the receipt of the first."""
    assert process.stdout
    assert process.stderr
    first: dict[str, Any] = json.loads(process.stdout.readline())
    greetings = (line for line in process.stderr if '"connected"' in line)
    next(line for line in greetings if first["correlation_id"] not in line)
    return first


def check_doubles(
    found: dict[str, list[bytes]], receipts: list[dict[str, Any]], complaints: str
) -> None:
    """Whatever lies on the topic more than once has been named, in JSON and in words."""
    doubled = {own for own, records in found.items() if len(records) > 1}
    named = {each["client_ref"] for each in receipts if each["may_be_doubled"]}
    assert doubled <= named
    assert named
    line = f"stream: may be stored twice, count by client_ref: {', '.join(sorted(named))}"
    assert complaints.splitlines()[-1] == line


class Cable:
    """A network between a client and a gateway. Cut, it swallows what is on its way."""

    def __init__(self, url: str) -> None:
        self._there = urlsplit(url)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._ends: list[socket.socket] = []
        self._cut: set[socket.socket] = set()
        self.url = f"ws://127.0.0.1:{self._listener.getsockname()[1]}/ws/audio"
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Let nothing more through on the connections that there are. New ones work."""
        self._cut |= set(self._ends)

    def leads_to(self, url: str) -> None:
        """Connect whoever comes next to another gateway."""
        self._there = urlsplit(url)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for each in (self._listener, *self._ends):
            each.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                assert self._there.hostname
                far = socket.create_connection((self._there.hostname, self._there.port or 0))
                self._ends += [near, far]
                for one, other in ((near, far), (far, near)):
                    threading.Thread(target=self._pass_on, args=(one, other), daemon=True).start()

    def _pass_on(self, one: socket.socket, other: socket.socket) -> None:
        with suppress(OSError):
            while data := one.recv(65_536):
                if one not in self._cut:
                    other.sendall(data)
            if one not in self._cut:
                other.shutdown(socket.SHUT_WR)


def test_a_network_that_is_cut_loses_nothing(start, topics, tmp_path):
    """What went into it is sent again; what the gateway kept of it is named as doubled."""
    pcm = recording(140)
    file = tmp_path / "long.raw"
    file.write_bytes(pcm)
    with ExitStack() as running:
        gateway = running.enter_context(start(IDLE_TIMEOUT_SECONDS="2", **SLOWLY))
        cable = running.enter_context(Cable(gateway.url))
        process = running.enter_context(streaming(file, cable.url, "cut", "--verbose"))
        first = in_the_middle_of_the_second(process)
        cable.cut()
        told, complaints = rest(process)
    found = on_the_topic(topics, "cut", told[-1]["correlation_id"])
    assert (process.returncode, joined(found)) == (0, pcm)
    check_doubles(found, [first, *told], complaints)
