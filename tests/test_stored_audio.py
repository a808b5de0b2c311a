"""What the gateway stores: the very samples, where the receipt says, for as many as may speak."""

import asyncio
import itertools
import json
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from speech_gateway import wav
from speech_tools import stack
from speech_tools.protocol import audio, client
from websockets.asyncio.client import connect

pytestmark = [pytest.mark.pipeline, pytest.mark.timeout(120)]

GO_FORWARD = Path(__file__).parent.parent / "samples" / "go-forward-ten-meters.raw"
LARGEST = 1_572_864 - 44
CHUNK = 65_536


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


async def send_cut(url: str, pieces: list[bytes]) -> dict:
    async with connect(url, compression=None) as connection:
        greeting = json.loads(await connection.recv())
        for piece in pieces:
            await connection.send(piece)
        await connection.send('{"event": "done"}')
        final = json.loads(await connection.recv())
        assert final["correlation_id"] == greeting["correlation_id"]
        return final


def cuttings(pcm: bytes) -> Iterator[list[bytes]]:
    """Cut samples at random, odd places among them, and a stretch into single bytes."""
    chance = random.Random(5)  # noqa: S311 - the same cuts each time
    for count in (0, 1, 7, 150):
        cuts = sorted({0, len(pcm), *(chance.randrange(len(pcm)) for _ in range(count))})
        yield [pcm[a:b] for a, b in itertools.pairwise(cuts)]
    yield [*(pcm[i : i + 1] for i in range(99)), pcm[99:]]


def test_samples_on_the_topic_are_those_sent_however_cut(url, topics):
    """The WAV on the topic holds the very samples, whether cut in one, in half samples or bytes."""
    pcm = audio.load(GO_FORWARD).pcm[:60_000]
    for pieces in cuttings(pcm):
        final = asyncio.run(send_cut(url, pieces))
        payload = topics.audio(final["correlation_id"]).payload
        assert payload.audio_bytes == wav.wrap(pcm)
        assert (payload.audio_format, payload.sample_rate_hz) == ("wav", 16_000)


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
    """Partition and offset of the receipt are those of the record."""
    receipt = speak(url, audio.load(GO_FORWARD).pcm)
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
