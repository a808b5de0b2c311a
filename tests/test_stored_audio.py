"""What the gateway stores: the very samples, where the receipt says, for as many as may speak."""

import asyncio
import json
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from speech_gateway import wav
from speech_lib.events import AudioInputEvent
from speech_lib.kafka.registry import EventDeserializer
from speech_tools import stack
from speech_tools.protocol import audio, client
from support import whole_topic
from websockets.asyncio.client import connect

pytestmark = [pytest.mark.pipeline, pytest.mark.timeout(120)]

GO_FORWARD = Path(__file__).parent.parent / "samples" / "go-forward-ten-meters.raw"
LARGEST = 1_572_864 - 44
CHUNK = 65_536
CUTTINGS = 50
MOST_SAMPLES = 16_000
MOST_CUTS = 99
"""Under the gateway's rate of messages, so that none of these clients is slowed."""
SINGLE_BYTES = 40


@pytest.fixture(scope="module")
def url(pipeline, topics, logs) -> Iterator[str]:
    environ = {**topics.names, **stack.MANY_FROM_ONE_ADDRESS}
    with stack.gateway(pipeline, logs, environ) as gateway:
        yield gateway.url


def speak(url: str, pcm: bytes, *, paced: bool = False) -> dict:
    """Send an utterance and return the receipt."""
    outcome = asyncio.run(client.stream(url, pcm, paced=paced))
    assert outcome.final["status"] == "accepted", outcome.final
    return outcome.final


@dataclass(frozen=True)
class Cutting:
    """Samples, and the places where they are cut, possibly within a sample."""

    pcm: bytes
    places: tuple[int, ...]

    @property
    def pieces(self) -> list[bytes]:
        bounds = [0, *self.places, len(self.pcm)]
        return [self.pcm[start:end] for start, end in pairwise(bounds)]


@st.composite
def cuttings(draw: st.DrawFn) -> Cutting:
    """Draw samples, some places to cut, and sometimes a stretch of single bytes."""
    samples = draw(st.integers(1, MOST_SAMPLES))
    pcm = random.Random(draw(st.integers(0))).randbytes(2 * samples)  # noqa: S311 - no secret
    within = st.integers(1, len(pcm) - 1)
    places = draw(st.sets(within, max_size=MOST_CUTS))
    if draw(st.booleans()):
        start = draw(within)
        places |= set(range(start, min(start + SINGLE_BYTES, len(pcm))))
    return Cutting(pcm, tuple(sorted(places)))


async def send(url: str, pieces: list[bytes]) -> str:
    """Send each piece as a message, and return the correlation id of what was accepted."""
    async with connect(url, compression=None) as connection:
        await connection.recv()
        for piece in pieces:
            await connection.send(piece)
        await connection.send('{"event": "done"}')
        final = json.loads(await connection.recv())
        assert final["status"] == "accepted", final
        return final["correlation_id"]


def read(topics) -> Mapping[str, list[bytes]]:
    """Return the WAV files on the topic, by correlation id."""
    decoder = EventDeserializer(topics.registry, AudioInputEvent)
    found: dict[str, list[bytes]] = {}
    for record in whole_topic.read(topics.kafka, topics.names["TOPIC_AUDIO_INGRESS"]):
        event = decoder.decode(record.value)
        found.setdefault(event.correlation_id, []).append(event.payload.audio_bytes)
    return found


def test_samples_on_the_topic_are_those_sent_however_cut(url, topics):
    """Fifty utterances, each on the topic once, sample by sample what the client had."""
    sent: dict[str, Cutting] = {}

    @settings(max_examples=CUTTINGS, deadline=None, database=None)
    @given(cuttings())
    def speak(cutting: Cutting) -> None:
        sent[asyncio.run(send(url, cutting.pieces))] = cutting

    speak()
    pieces = [piece for cutting in sent.values() for piece in cutting.pieces]
    assert len(sent) >= CUTTINGS
    assert {len(piece) % 2 for piece in pieces} == {0, 1}
    assert sum(len(piece) == 1 for piece in pieces) >= SINGLE_BYTES
    stored = {each: files for each, files in read(topics).items() if each in sent}
    assert stored == {each: [wav.wrap(cutting.pcm)] for each, cutting in sent.items()}


def test_largest_utterance_is_stored_whole(url, topics):
    """An utterance of exactly the limit is accepted and is on the topic, byte for byte."""
    pcm = random.Random(7).randbytes(LARGEST)  # noqa: S311 - any samples will do
    receipt = speak(url, pcm)
    assert topics.audio(receipt["correlation_id"]).payload.audio_bytes == wav.wrap(pcm)


async def send_whole(url: str, pcm: bytes) -> tuple[dict, int | None]:
    """Send samples in chunks and no `done`; return the answer and the close code."""
    async with connect(url, compression=None) as connection:
        await connection.recv()
        for start in range(0, len(pcm), CHUNK):
            await connection.send(pcm[start : start + CHUNK])
        final = json.loads(await connection.recv())
        await connection.wait_closed()
        return final, connection.close_code


def test_one_sample_more_than_the_largest_utterance_is_refused(url):
    """The answer names the limit and what there was; it comes without waiting for `done`."""
    pcm = random.Random(8).randbytes(LARGEST + 2)  # noqa: S311 - any samples will do
    final, close_code = asyncio.run(send_whole(url, pcm))
    assert (final["code"], final["stored"], final["limit"], final["observed"], close_code) == (
        "audio_too_long",
        "no",
        LARGEST,
        LARGEST + 2,
        1009,
    )


def test_receipt_names_where_the_record_is(url, topics):
    """Partition and offset of the receipt are those of the record, which tells its format."""
    receipt = speak(url, audio.load(GO_FORWARD).pcm)
    payload = topics.audio(receipt["correlation_id"]).payload
    assert (payload.audio_format, payload.sample_rate_hz) == ("wav", 16_000)
    record = topics.find("TOPIC_AUDIO_INGRESS", receipt["correlation_id"])
    assert (record.topic, record.partition, record.offset) == (
        receipt["topic"],
        receipt["partition"],
        receipt["offset"],
    )


async def ten_at_once(url: str, pcm: bytes) -> list[str]:
    outcomes = await asyncio.gather(*(client.stream(url, pcm, paced=True) for _ in range(10)))
    return [outcome.final["status"] for outcome in outcomes]


def test_ten_clients_at_the_pace_of_speech_for_the_largest_utterance(url):
    """As many clients as the gateway takes speak for as long as they may, and all are stored."""
    pcm = random.Random(9).randbytes(LARGEST)  # noqa: S311 - any samples will do
    assert asyncio.run(ten_at_once(url, pcm)) == ["accepted"] * 10
