"""Every way an utterance can end, over real sockets: messages, close, and what is published."""

import asyncio
import hashlib
import json
from dataclasses import asdict, replace

import pytest
from speech_gateway.errors import Ending, Failure, NotStored
from speech_gateway.testing import CONFIG, LIMITS, Heard, hear, raw_client, run_server, until
from websockets.asyncio.client import connect
from websockets.frames import Frame, Opcode

pytestmark = pytest.mark.anyio

DONE = '{"event":"done"}'
PCM = bytes(range(256)) * 5
SHORT = replace(LIMITS, idle_timeout_seconds=0.2)


def configured(**limits):
    return replace(CONFIG, limits=replace(LIMITS, **limits))


def connected(correlation_id, limits=LIMITS):
    return {
        "status": "connected",
        "correlation_id": correlation_id,
        "protocol": "speech-ingress.v1",
        "audio": {
            "encoding": "pcm_s16le",
            "sample_rate_hz": 16000,
            "channels": 1,
            "recommended_chunk_bytes": 3200,
        },
        "limits": asdict(limits),
    }


def accepted(correlation_id, pcm, ended_by):
    return {
        "status": "accepted",
        "correlation_id": correlation_id,
        "event_id": "event-0",
        "topic": "speech.audio.ingress",
        "partition": 0,
        "offset": 0,
        "audio_bytes": len(pcm),
        "duration_ms": round(len(pcm) / 32),
        "sha256": hashlib.sha256(pcm).hexdigest(),
        "ended_by": ended_by,
    }


def error(correlation_id, rule, stored="no", **more):
    return {
        "status": "error",
        "correlation_id": correlation_id,
        "code": rule.value.code,
        "message": rule.value.message,
        "retryable": rule.value.retryable,
        "stored": stored,
        **more,
    }


async def speak(server, *messages):
    """Send messages, listen to the end; return what was heard and the id of the greeting."""
    async with connect(server.url) as client:
        for message in messages:
            await client.send(message)
        heard = await hear(client)
    return heard, heard.messages[0]["correlation_id"]


def given(server):
    return [(p.utterance.ended_by, p.pcm) for p in server.store.published]


async def test_done_publishes_and_accepts():
    """`done` publishes exactly what was sent, answers with the receipt, and closes 1000."""
    async with run_server() as server:
        heard, cid = await speak(server, PCM[:333], PCM[333:], DONE)
        assert heard == Heard([connected(cid), accepted(cid, PCM, "done")], 1000, "done")
        assert given(server) == [("done", PCM)]


async def test_accepted_waits_for_the_store():
    """Nothing is said after `done` until the store has answered."""
    async with run_server() as server, connect(server.url) as client:
        server.store.hold()
        listening = asyncio.create_task(hear(client))
        await client.send(PCM)
        await client.send(DONE)
        await server.store.until_given()
        await client.ping()  # whatever was owed before would be here with its pong
        assert not listening.done()
        server.store.release()
        heard = await listening
        cid = heard.messages[0]["correlation_id"]
        assert heard.messages[1:] == [accepted(cid, PCM, "done")]


async def test_a_close_frame_publishes():
    """A client that closes in good order is a disconnect; its audio is published."""
    async with run_server() as server:
        async with connect(server.url) as client:
            await client.send(PCM)
        await server.store.until_given()
        assert given(server) == [("disconnect", PCM)]


@pytest.mark.parametrize("how", ["end_sending", "reset"])
async def test_a_broken_connection_publishes(how):
    """A connection that ends without a close frame is a disconnect; whole samples are published."""
    async with run_server() as server, raw_client(server.port) as client:
        client.send(Frame(Opcode.BINARY, PCM + b"\x01"))
        client.send(Frame(Opcode.PING, b"read"))
        while (await client.read_frame()).opcode is not Opcode.PONG:
            pass
        getattr(client, how)()
        await server.store.until_given()
        assert given(server) == [("disconnect", PCM)]


async def test_disconnect_without_audio_publishes_nothing():
    """A client that says nothing and leaves causes no record, and gives its slot back."""
    async with run_server() as server:
        async with connect(server.url):
            pass
        await until(lambda: server.live == 0)
        assert given(server) == []


async def test_idle_publishes_what_there_is():
    """Without audio for the idle time the utterance ends and is accepted, with 1001."""
    async with run_server(configured(idle_timeout_seconds=0.2)) as server:
        heard, cid = await speak(server, PCM)
        assert heard.messages[1:] == [accepted(cid, PCM, "idle_timeout")]
        assert (heard.code, heard.reason) == (1001, "idle_timeout")


async def test_idle_without_audio_is_an_error():
    """A client that never speaks is told so, and may try again."""
    async with run_server(configured(idle_timeout_seconds=0.2)) as server:
        heard, cid = await speak(server, b"\x01")
        expected = [connected(cid, SHORT), error(cid, Ending.IDLE_TIMEOUT)]
        assert heard == Heard(expected, 1001, "idle_timeout")
        assert given(server) == []


async def test_only_audio_keeps_a_session_from_idling():
    """Pings and empty messages prolong nothing."""
    async with (
        run_server(configured(idle_timeout_seconds=0.3, max_session_seconds=3.0)) as server,
        connect(server.url) as client,
    ):
        await client.send(PCM)
        listening = asyncio.create_task(hear(client))
        while not listening.done():
            await client.ping()
            await client.send(b"")
            await asyncio.wait([listening], timeout=0.12)
        assert (await listening).reason == "idle_timeout"


@pytest.mark.parametrize(("sent", "published"), [([PCM], True), ([], False)])
async def test_the_session_expires(sent, published):
    """After the session's time what was sent is published with 1008; else there is an error."""
    async with run_server(configured(max_session_seconds=0.2)) as server:
        heard, cid = await speak(server, *sent)
        final = accepted(cid, PCM, "session_expired")
        assert heard.messages[1] == (final if published else error(cid, Ending.SESSION_EXPIRED))
        assert (heard.code, heard.reason) == (1008, "session_expired")


async def test_too_long_an_utterance_is_rejected():
    """One byte over the limit ends it with an error that names limit and size; no audio is kept."""
    async with run_server(configured(max_audio_bytes=1000)) as server:
        heard, cid = await speak(server, PCM[:1000], b"\x01")
        failed = error(cid, Ending.AUDIO_TOO_LONG, limit=1000, observed=1001)
        assert (heard.messages[1:], heard.code) == ([failed], 1009)
        assert heard.reason == "audio_too_long"
        assert given(server) == []


async def test_too_long_an_utterance_is_filled_where_asked():
    """With `fill_at_limit` exactly as much as fits is published, with 1009."""
    config = replace(configured(max_audio_bytes=1000), fill_at_limit=True)
    async with run_server(config) as server:
        heard, cid = await speak(server, PCM[:600], PCM[600:])
        assert heard.messages[1:] == [accepted(cid, PCM[:1000], "audio_too_long")]
        assert (heard.code, heard.reason) == (1009, "audio_too_long")
        assert given(server) == [("audio_too_long", PCM[:1000])]


async def test_too_large_a_message_fails_the_connection():
    """A message over the limit is the library's 1009, and discards the utterance."""
    async with run_server() as server:
        heard, cid = await speak(server, PCM, bytes(65_537))
        assert (heard.messages, heard.code) == ([connected(cid)], 1009)
        assert given(server) == []


async def test_the_largest_message_is_taken():
    """A message of exactly the limit is audio like any other."""
    async with run_server() as server:
        await speak(server, PCM, bytes(65_536), DONE)
        assert given(server) == [("done", PCM + bytes(65_536))]


@pytest.mark.parametrize(
    "text",
    ["done", "[]", '{"event":"start"}', '{"correlation_id":"mine"}', "[" * 4000],
)
async def test_an_unknown_text_message_is_an_error(text):
    """Text that is not a known event ends the utterance with 1003; its audio is discarded."""
    async with run_server() as server:
        heard, cid = await speak(server, PCM, text)
        message = heard.messages[1].pop("message")
        expected = error(cid, Ending.INVALID_MESSAGE)
        del expected["message"]
        assert (heard.messages[1:], heard.code) == ([expected], 1003)
        assert heard.reason == "invalid_message"
        assert message
        assert given(server) == []


async def test_too_long_a_text_message_is_an_error():
    """A text over 4 KiB is told the limit and its size."""
    text = json.dumps({"event": "done", "pad": "x" * 5000})
    async with run_server() as server:
        heard, _ = await speak(server, PCM, text)
        failed = heard.messages[1]
        assert (failed["code"], failed["limit"]) == ("invalid_message", 4096)
        assert failed["observed"] == len(text)


@pytest.mark.parametrize(
    "audio", [[b"RIFF\x00\x00\x00\x00WAVE" + PCM], [PCM + b"\x01", DONE], [b"OggS", DONE]]
)
async def test_what_is_not_pcm_is_an_error(audio):
    """A container, or `done` on half a sample, is 1003; nothing is published."""
    async with run_server() as server:
        heard, cid = await speak(server, *audio)
        assert heard.messages[1:] == [error(cid, Ending.UNSUPPORTED_AUDIO)]
        assert (heard.code, heard.reason) == (1003, "unsupported_audio")
        assert given(server) == []


async def test_done_without_audio_is_an_error():
    """`done` as the first message is 1008."""
    async with run_server() as server:
        heard, cid = await speak(server, DONE)
        expected = [connected(cid), error(cid, Ending.EMPTY_AUDIO)]
        assert heard == Heard(expected, 1008, "empty_audio")
        assert given(server) == []


@pytest.mark.parametrize(
    ("failure", "stored", "code"),
    [
        (Failure.BROKER_UNAVAILABLE, "no", 1013),
        (Failure.BROKER_UNAVAILABLE, "unknown", 1013),
        (Failure.REJECTED_BY_BROKER, "no", 1011),
    ],
)
async def test_what_the_store_says_is_passed_on(failure, stored, code):
    """A delivery that fails is an error with what is known of the record."""
    async with run_server() as server:
        server.store.failure = NotStored(failure, stored, "_MSG_TIMED_OUT")
        heard, cid = await speak(server, PCM, DONE)
        assert heard.messages[1:] == [error(cid, failure, stored)]
        assert (heard.code, heard.reason) == (code, failure.value.code)


@pytest.mark.parametrize(("where", "stored"), [("defect", "no"), ("failure", "unknown")])
async def test_a_defect_is_an_internal_error(where, stored):
    """An unexpected exception of the store is 1011, and says nothing of itself to the client."""
    async with run_server() as server:
        setattr(server.store, where, ValueError("broker.example.com:9092"))
        heard, cid = await speak(server, PCM, DONE)
        assert heard.messages[1:] == [error(cid, Failure.INTERNAL_ERROR, stored)]
        assert (heard.code, heard.reason) == (1011, "internal_error")


async def test_a_client_that_leaves_after_done_stays_done():
    """The first ending wins: leaving while `done` is stored changes nothing, and frees the slot."""
    async with run_server() as server:
        server.store.hold()
        async with connect(server.url) as client:
            await client.send(PCM)
            await client.send(DONE)
            await server.store.until_given()
        assert server.live == 1  # its audio still waits for the broker
        server.store.release()
        await until(lambda: server.live == 0)
        assert given(server) == [("done", PCM)]
        labels = {"ended_by": "done", "outcome": "accepted"}
        registry = server.gateway.metrics.registry
        assert registry.get_sample_value("speech_gateway_sessions_total", labels) == 1


async def test_what_follows_the_end_is_ignored():
    """After `done`, audio and unknown text change nothing about the answer."""
    async with run_server() as server:
        heard, cid = await speak(server, PCM, DONE, PCM, "nonsense")
        assert heard == Heard([connected(cid), accepted(cid, PCM, "done")], 1000, "done")
        assert given(server) == [("done", PCM)]
