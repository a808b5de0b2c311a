"""Random samples, cut at random, through a live gateway: those sent are those on the topic.

The session's rules are tried on 1,000 cuttings in the gateway's own tests; here sockets and the
broker are between.
"""

import asyncio
import json
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from speech_gateway import wav
from speech_lib.events import AudioInputEvent
from speech_lib.kafka.registry import EventDeserializer
from speech_tools import stack
from support import whole_topic
from websockets.asyncio.client import connect

pytestmark = [pytest.mark.pipeline, pytest.mark.timeout(120)]

CUTTINGS = 50
MOST_SAMPLES = 16_000
MOST_CUTS = 99
"""Under the gateway's rate of messages, so that none of these clients is slowed."""
SINGLE_BYTES = 40


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


@pytest.fixture(scope="module")
def url(pipeline, topics, logs) -> Iterator[str]:
    environ = {**topics.names, **stack.MANY_FROM_ONE_ADDRESS}
    with stack.gateway(pipeline, logs, environ) as gateway:
        yield gateway.url


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


def test_samples_on_the_topic_are_those_sent_however_they_were_cut(url, topics):
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
    assert read(topics) == {
        correlation_id: [wav.wrap(cutting.pcm)] for correlation_id, cutting in sent.items()
    }
