"""The pipeline as its users meet it: gateway and recogniser as processes, a broker between them."""

import asyncio
import json
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from pocketsphinx import Decoder
from speech_tools import stack
from speech_tools.protocol import audio, client
from websockets.asyncio.client import connect

pytestmark = [pytest.mark.pipeline, pytest.mark.timeout(120)]

SAMPLES = Path(__file__).parent.parent / "samples"
GO_FORWARD = SAMPLES / "go-forward-ten-meters.raw"
RECORDINGS = [GO_FORWARD, SAMPLES / "sense-and-sensibility-0870.wav"]


@pytest.fixture(scope="module")
def url(pipeline, topics, logs) -> Iterator[str]:
    with stack.gateway(pipeline, logs, topics.names) as gateway:
        yield gateway.url


@pytest.fixture(scope="module")
def recogniser(pipeline, topics, logs) -> Iterator[None]:
    with stack.recogniser(pipeline, logs, topics.names):
        yield


def speak(url: str, pcm: bytes, *, paced: bool = False) -> dict:
    """Send an utterance and return the receipt."""
    outcome = asyncio.run(client.stream(url, pcm, paced=paced))
    assert outcome.final["status"] == "accepted", outcome.final
    return outcome.final


def heard_directly(pcm: bytes) -> str:
    """Return what PocketSphinx says of the samples without the pipeline."""
    decoder = Decoder(samprate=16_000, loglevel="FATAL")
    decoder.start_utt()
    decoder.process_raw(pcm, full_utt=True)
    decoder.end_utt()
    hypothesis = decoder.hyp()
    return hypothesis.hypstr if hypothesis else ""


@pytest.mark.parametrize("recording", RECORDINGS, ids=lambda path: path.stem)
def test_text_is_what_the_recogniser_says_of_the_same_samples(url, recogniser, topics, recording):
    """The words on the text topic are those that the engine hears without the pipeline."""
    pcm = audio.load(recording).pcm
    receipt = speak(url, pcm)
    event = topics.text(receipt["correlation_id"])
    assert event.payload.text == heard_directly(pcm)
    assert 0 < event.payload.confidence <= 1


def test_silence_is_an_empty_text(url, recogniser, topics):
    """Silence comes out as a text event without words, and without confidence in them."""
    receipt = speak(url, bytes(2 * 16_000 * 2))
    payload = topics.text(receipt["correlation_id"]).payload
    assert (payload.text, payload.confidence) == ("", 0.0)


async def speak_with_own_id(url: str, own: str) -> dict:
    headers = {"correlation_id": own, "X-Correlation-ID": own}
    async with connect(f"{url}?correlation_id={own}", additional_headers=headers) as connection:
        await connection.recv()
        await connection.send(audio.load(GO_FORWARD).pcm[:32_000])
        await connection.send(json.dumps({"event": "done", "correlation_id": own}))
        return json.loads(await connection.recv())


def test_correlation_id_is_the_servers_everywhere(url, recogniser, topics, logs):
    """An id sent by the client as header, query and JSON appears nowhere; the server's does."""
    own = str(uuid.uuid4())
    final = asyncio.run(speak_with_own_id(url, own))
    server = final["correlation_id"]
    assert uuid.UUID(server).version == 4
    audio_record = topics.find("TOPIC_AUDIO_INGRESS", server)
    text_record = topics.find("TOPIC_ASR_TEXT", server)
    assert audio_record.key == text_record.key == server.encode()
    assert topics.audio(server).correlation_id == topics.text(server).correlation_id == server
    everything = [final, audio_record, text_record, stack.last_lines(logs)]
    assert own not in repr(everything)


def test_record_says_when_each_hop_was(url, recogniser, topics):
    """Headers carry the utterance's times in order, its ending, and one trace from end to end."""
    receipt = speak(url, audio.load(GO_FORWARD).pcm)
    heard = topics.find("TOPIC_AUDIO_INGRESS", receipt["correlation_id"]).headers
    said = topics.find("TOPIC_ASR_TEXT", receipt["correlation_id"]).headers
    times = [heard["handshake_ms"], heard["first_audio_ms"], heard["ended_ms"]]
    times += [said["fetched_ms"], said["recognised_ms"]]
    assert times == sorted(times)
    assert (heard["ended_by"], heard["event_type"]) == ("done", "AudioInputEvent")
    assert said["input_event_id"] == receipt["event_id"]
    assert heard["traceparent"].split("-")[1] == said["traceparent"].split("-")[1]
