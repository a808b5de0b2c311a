"""The text comes back on the connection that it was spoken on: whole services, a broker between."""

import asyncio
import json
import signal
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from speech_lib.kafka.producer import RecordProducer
from speech_lib.kafka.records import Record
from speech_tools import stack
from speech_tools.protocol import audio
from speech_tools.stream.command import app
from support import operations
from support.invoke import invoke
from support.ports import free_ports
from support.waiting import until
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus

pytestmark = [pytest.mark.pipeline, pytest.mark.timeout(180)]

SAMPLES = Path(__file__).parent.parent / "samples"
GO_FORWARD = (SAMPLES / "go-forward-ten-meters.raw").read_bytes()
SENTENCE = audio.load(SAMPLES / "sense-and-sensibility-0870.wav").pcm
DONE = json.dumps({"event": "done"})
CHUNK_BYTES = 32_000
SPOKEN_BYTES = 16_000


@dataclass(frozen=True)
class Heard:
    """What a client saw: every message, and how the connection was closed."""

    messages: list[dict]
    code: int
    reason: str

    @property
    def statuses(self) -> list[str]:
        return [message["status"] for message in self.messages]


async def send(connection: ClientConnection, pcm: bytes) -> None:
    for begin in range(0, len(pcm), CHUNK_BYTES):
        await connection.send(pcm[begin : begin + CHUNK_BYTES])
    await connection.send(DONE)


async def speak(url: str, pcm: bytes, query: str = "results=text") -> Heard:
    """Say an utterance, and listen until the close."""
    async with connect(f"{url}?{query}") as connection:
        await send(connection, pcm)
        messages = [json.loads(message) async for message in connection]
    return Heard(messages, connection.close_code or 0, connection.close_reason or "")


async def receipt(connection: ClientConnection, pcm: bytes) -> dict:
    """Say an utterance, and return its receipt; the connection stays open."""
    greeting = json.loads(await connection.recv())
    await send(connection, pcm)
    accepted = json.loads(await connection.recv())
    assert (greeting["status"], accepted["status"]) == ("connected", "accepted")
    return accepted


Start = Callable[..., AbstractContextManager[stack.Gateway]]


@pytest.fixture
def start(pipeline, topics, logs) -> Start:
    """Return what starts a gateway that sends texts, with further settings."""

    def gateway(**settings: str) -> AbstractContextManager[stack.Gateway]:
        return stack.gateway(pipeline, logs, {**topics.names, "RESULTS": "on", **settings})

    return gateway


@pytest.fixture
def recogniser(pipeline, topics, logs) -> Callable[[], AbstractContextManager[stack.Process]]:
    """Return what starts a recogniser, each under a log of its own."""

    def start() -> AbstractContextManager[stack.Process]:
        folder = logs / f"recogniser-{time.monotonic_ns()}"
        folder.mkdir()
        return stack.recogniser(pipeline, folder, topics.names)

    return start


def test_the_text_follows_the_receipt(start, recogniser, topics):
    """A client that asks for it gets its text after `accepted`, and then the usual close."""
    with start() as gateway, recogniser():
        heard = asyncio.run(speak(gateway.url, GO_FORWARD, "results=text&client_ref=a.b~c-1"))
    greeting, accepted, told = heard.messages
    assert (greeting["client_ref"], greeting["results"]) == ("a.b~c-1", {"timeout_seconds": 30.0})
    event = topics.text(accepted["correlation_id"])
    place = topics.find("TOPIC_ASR_TEXT", accepted["correlation_id"])
    assert told == {
        "status": "recognized",
        "correlation_id": accepted["correlation_id"],
        "text": event.payload.text,
        "language": event.payload.language,
        "confidence": round(event.payload.confidence, 4),
        "event_id": event.event_id,
        "topic": place.topic,
        "partition": place.partition,
        "offset": place.offset,
    }
    assert (heard.statuses, heard.code, heard.reason) == (
        ["connected", "accepted", "recognized"],
        1000,
        "done",
    )
    record = topics.find("TOPIC_AUDIO_INGRESS", accepted["correlation_id"])
    assert record.headers["client_ref"] == "a.b~c-1"


def test_speech_stream_shows_the_text(start, recogniser):
    """What a person sees: the receipt, then the words."""
    with start() as gateway, recogniser():
        sample = SAMPLES / "go-forward-ten-meters.raw"
        done = invoke(app, sample, "--fast", "--results", "--url", gateway.url)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "go forward ten meters")


# Many at once


async def crowd(urls: list[str], size: int, disturb: Callable[[], object]) -> list[Heard]:
    """Let `size` clients speak at once, each its own; disturb once the first has its text."""
    step = (len(SENTENCE) - SPOKEN_BYTES) // size // 2 * 2
    speaking = [
        asyncio.create_task(
            speak(urls[i % len(urls)], SENTENCE[i * step : i * step + SPOKEN_BYTES])
        )
        for i in range(size)
    ]
    await asyncio.wait(speaking, return_when=asyncio.FIRST_COMPLETED)
    await asyncio.to_thread(disturb)
    return await asyncio.gather(*speaking)


@pytest.mark.parametrize("disturbed", [10, pytest.param(40, marks=pytest.mark.full)])
def test_each_of_many_gets_its_own_text_once(disturbed, start, recogniser, topics):
    """Two gateways, two recognisers, forty clients: each its own text, on its own connection.

    So it is while partitions move, because a third recogniser joins, and while one is killed.
    """
    many = {
        "MAX_CONNECTIONS": "40",
        "MAX_CONNECTIONS_PER_ADDRESS": "40",
        "RESULT_TIMEOUT_SECONDS": "120",
        **stack.MANY_FROM_ONE_ADDRESS,
    }
    with ExitStack() as running:
        urls = [running.enter_context(start(**many)).url for _ in range(2)]
        recognisers = [running.enter_context(recogniser()) for _ in range(2)]
        phases: list[tuple[int, Callable[[], object]]] = [
            (40, lambda: None),
            (disturbed, lambda: running.enter_context(recogniser())),
            (disturbed, lambda: recognisers[0].signal(signal.SIGKILL)),
        ]
        heard = [each for phase in phases for each in asyncio.run(crowd(urls, *phase))]
    assert {tuple(each.statuses) for each in heard} == {("connected", "accepted", "recognized")}
    told = {each.messages[0]["correlation_id"]: each.messages[2] for each in heard}
    assert len(told) == 40 + 2 * disturbed
    texts = texts_of(topics, set(told))
    assert {own: (each["event_id"], each["text"]) for own, each in told.items()} == {
        own: texts[own][each["event_id"]] for own, each in told.items()
    }


def texts_of(topics, wanted: set[str]) -> dict[str, dict[str, tuple[str, str]]]:
    """Return the texts on the topic by correlation id and event id; there may be repeats."""
    found: dict[str, dict[str, tuple[str, str]]] = {}
    with topics.reader("TOPIC_ASR_TEXT") as consumer:

        def complete() -> bool:
            for record in consumer.poll(0.5):
                event = topics.decode_text(record)
                if event.correlation_id in wanted:
                    of = found.setdefault(event.correlation_id, {})
                    of[event.event_id] = (event.event_id, event.payload.text)
            return found.keys() == wanted

        until(complete, seconds=60, every=0)
    return found


# No text


def dead_letter(topics, accepted: Mapping[str, object]) -> None:
    """Write the dead letter of an utterance, as a recogniser does."""
    key = str(accepted["correlation_id"]).encode()

    async def write() -> None:
        producer = RecordProducer(topics.kafka, client_id="test", delivery_timeout=10)
        try:
            await producer.send(Record(topics.names["TOPIC_DEAD_LETTER"], key, b"", {}))
        finally:
            await producer.close(2)

    asyncio.run(write())


def test_a_dead_letter_says_that_there_will_be_no_text(start, topics):
    """`not_recognized`, with the audio stored."""

    async def wait_in_vain(url: str) -> tuple[dict, int, str]:
        async with connect(f"{url}?results=text") as connection:
            accepted = await receipt(connection, GO_FORWARD)
            await asyncio.to_thread(dead_letter, topics, accepted)
            final = json.loads(await connection.recv())
            await connection.wait_closed()
        return final, connection.close_code, connection.close_reason

    with start() as gateway:
        final, code, reason = asyncio.run(wait_in_vain(gateway.url))
    assert (final["status"], final["code"], final["stored"], final["retryable"]) == (
        "error",
        "not_recognized",
        "yes",
        False,
    )
    assert (code, reason) == (1011, "not_recognized")


def test_without_a_recogniser_the_wait_ends_in_time(start):
    """`result_timeout` after its time, and not before."""

    async def wait_in_vain(url: str) -> tuple[dict, float]:
        async with connect(f"{url}?results=text") as connection:
            await receipt(connection, GO_FORWARD)
            began = time.monotonic()
            final = json.loads(await connection.recv())
            return final, time.monotonic() - began

    with start(RESULT_TIMEOUT_SECONDS="2") as gateway:
        final, waited = asyncio.run(wait_in_vain(gateway.url))
    assert (final["code"], final["stored"]) == ("result_timeout", "yes")
    assert waited == pytest.approx(2, abs=1)


def test_a_client_that_leaves_gives_its_slot_back(start):
    """Whoever does not want to wait for the text holds nobody up."""
    told: list[str] = []

    async def leave_and_come_back(url: str) -> float:
        async with connect(f"{url}?results=text") as connection:
            await receipt(connection, GO_FORWARD)
        left = time.monotonic()
        while True:
            try:
                async with connect(url):
                    return time.monotonic() - left
            except InvalidStatus as refusal:
                told.append(json.loads(refusal.response.body)["code"])
                await asyncio.sleep(0.02)

    with start(MAX_CONNECTIONS="1") as gateway:
        assert asyncio.run(leave_and_come_back(gateway.url)) < 1
    assert set(told) <= {"at_capacity"}


# A drain


async def ten_wait(gateway: stack.Gateway, then: Callable[[], None]) -> list[dict]:
    """Let ten wait for texts, stop the gateway, do `then`; return the last messages."""
    connections = [await connect(f"{gateway.url}?results=text") for _ in range(10)]
    try:
        await asyncio.gather(*(receipt(each, GO_FORWARD) for each in connections))
        gateway.process.signal(signal.SIGTERM)
        await asyncio.to_thread(then)
        return [json.loads(await each.recv()) for each in connections]
    finally:
        for each in connections:
            await each.close()


def test_a_drain_waits_for_the_texts(start, recogniser):
    """Ten that wait get their texts from a gateway that was asked to stop, which then ends."""
    patient = {"DRAIN_SECONDS": "120", "RESULT_TIMEOUT_SECONDS": "120"}  # the recogniser starts
    with ExitStack() as running:
        gateway = running.enter_context(start(**patient))
        finals = asyncio.run(ten_wait(gateway, lambda: running.enter_context(recogniser())))
        assert gateway.process.wait(10) == 0
    assert [final["status"] for final in finals] == ["recognized"] * 10


def test_a_drain_ends_the_wait_at_its_deadline(start):
    """What has not come by then comes too late for this connection."""
    with start(DRAIN_SECONDS="1") as gateway:
        finals = asyncio.run(ten_wait(gateway, lambda: None))
        assert gateway.process.wait(10) == 0
    assert [final["code"] for final in finals] == ["result_timeout"] * 10


# What it takes


def test_without_results_nothing_is_read(pipeline, topics, logs):
    """`RESULTS=off`: the parameter is refused, and nobody looks for the topic of texts."""
    with stack.gateway(pipeline, logs, {**topics.names, "TOPIC_ASR_TEXT": "not.there"}) as gateway:
        with pytest.raises(InvalidStatus) as caught:
            asyncio.run(speak(gateway.url, GO_FORWARD))
        heard = asyncio.run(speak(gateway.url, GO_FORWARD, ""))
    assert json.loads(caught.value.response.body)["code"] == "results_not_offered"
    assert heard.statuses == ["connected", "accepted"]


def test_a_gateway_that_cannot_read_texts_is_not_ready(pipeline, topics, logs):
    """Its operators learn why, and its clients are sent to another one."""
    (port,) = free_ports(["ops"]).values()
    env = {
        "KAFKA_BOOTSTRAP_SERVERS": pipeline.bootstrap_servers,
        "SCHEMA_REGISTRY_URL": pipeline.registry_url,
        **topics.names,
        "RESULTS": "on",
        "TOPIC_ASR_TEXT": "not.there",
        "PORT": "0",
        "OPS_PORT": str(port),
    }
    with stack.Process("gateway", "speech_gateway", env, logs) as process:
        process.wait_for(event="listening")
        until(
            lambda: operations.readiness(port),
            lambda answer: answer[1].get("reasons") == {"results": "UNKNOWN_TOPIC_OR_PART"},
            seconds=30,
        )
