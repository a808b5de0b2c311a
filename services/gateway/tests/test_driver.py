"""How a session is led over a connection: memory, defects, and the line that is left in the log."""

import asyncio
import gc
import sys
import weakref
from dataclasses import replace

import pytest
from speech_gateway.errors import Failure, NotStored
from speech_gateway.session import Session
from speech_gateway.testing import CONFIG, LIMITS, hear, run_server, until
from structlog.testing import capture_logs
from websockets.asyncio.client import connect

pytestmark = pytest.mark.anyio

DONE = '{"event":"done"}'
PCM = bytes(range(256)) * 5


async def speak(server, *messages):
    async with connect(server.url) as client:
        for message in messages:
            await client.send(message)
        return await hear(client)


async def test_only_the_store_holds_the_audio_while_it_is_stored():
    """Once an utterance is handed over, nothing else in the gateway keeps it alive."""
    async with run_server() as server, connect(server.url) as client:
        server.store.hold()
        await client.send(bytes(60_000))
        await client.send(bytes(60_000))
        await client.send(DONE)
        await server.store.until_given()
        await (await client.ping())  # the loop has turned since
        utterance = server.store.published[0].utterance
        wav = utterance.wav
        # This name, the utterance's field, and the argument of `getrefcount`.
        assert sys.getrefcount(wav) == 3
        # This name, what the double keeps, and the argument.
        assert sys.getrefcount(utterance) == 3
        (driver,) = server.gateway._drivers
        assert driver.session._buffer == b""


async def test_an_ended_session_is_forgotten():
    """No timer or task keeps a session alive after its end."""
    async with run_server() as server:
        async with connect(server.url) as client:
            await client.recv()
            (driver,) = server.gateway._drivers
            driver = weakref.ref(driver)
        await until(lambda: server.live == 0 and not server.gateway._server.handler_tasks)
        gc.collect()
        assert driver() is None


async def test_a_defect_of_a_rule_is_an_internal_error(monkeypatch):
    """An exception while reading ends the utterance with 1011, and is logged with its session."""

    def fail(*_):
        raise ZeroDivisionError

    monkeypatch.setattr(Session, "receive_audio", fail)
    with capture_logs() as logs:
        async with run_server() as server:
            heard = await speak(server, PCM)
            assert (heard.code, heard.reason) == (1011, "internal_error")
            assert heard.messages[1]["code"] == "internal_error"
            assert server.store.published == []
    cid = heard.messages[0]["correlation_id"]
    assert {"event": "reading failed", "correlation_id": cid}.items() <= logs[0].items()


async def test_a_session_leaves_one_line():
    """The log has one line of a session, with its outcome and no audio."""
    with capture_logs() as logs:
        async with run_server() as server:
            heard = await speak(server, PCM[:640], PCM[640:], DONE)
            await until(lambda: server.live == 0)
    (line,) = [line for line in logs if line["event"] == "session"]
    assert 0 <= line.pop("ack_ms") <= line.pop("session_ms")
    assert line == {
        "event": "session",
        "log_level": "info",
        "correlation_id": heard.messages[0]["correlation_id"],
        "client": "127.0.0.0/24",
        "ended_by": "done",
        "outcome": "accepted",
        "code": 1000,
        "audio_bytes": 1280,
        "duration_ms": 40,
        "messages": 2,
        "partition": 0,
        "offset": 0,
        "trace_id": server.store.published[0].context.trace.trace_id,
    }


@pytest.mark.parametrize(
    ("messages", "ended_by", "code"),
    [
        (["{}"], "invalid_message", 1003),
        ([DONE], "empty_audio", 1008),
        ([bytes(70_000)], "chunk_too_large", 1009),
        ([PCM], "disconnect", None),
    ],
    ids=["by the session", "without audio", "by the library", "by the client"],
)
async def test_the_line_tells_with_which_code_the_gateway_closed(messages, ended_by, code):
    """Also where the library did; nothing where the client has gone by itself."""
    with capture_logs() as logs:
        async with run_server() as server:
            async with connect(server.url) as client:
                for message in messages:
                    await client.send(message)
                if ended_by != "disconnect":
                    await hear(client)
            await until(lambda: server.live == 0)
    (line,) = [line for line in logs if line["event"] == "session"]
    assert (line["ended_by"], line["code"]) == (ended_by, code)


async def test_audio_that_is_not_stored_is_logged_with_the_reason():
    """The operator sees Kafka's name of the error; the client does not."""
    with capture_logs() as logs:
        async with run_server() as server:
            server.store.failure = NotStored(
                Failure.BROKER_UNAVAILABLE, "unknown", "_MSG_TIMED_OUT"
            )
            heard = await speak(server, PCM, DONE)
    assert "_MSG_TIMED_OUT" not in str(heard)
    (line,) = [line for line in logs if line["event"] == "not stored"]
    assert line == {
        "event": "not stored",
        "log_level": "warning",
        "correlation_id": heard.messages[0]["correlation_id"],
        "code": "broker_unavailable",
        "stored": "unknown",
        "reason": "_MSG_TIMED_OUT",
    }


async def test_reading_goes_on_while_the_client_keeps_sending_after_the_end():
    """What a client sends after its `done` is read and dropped, so that its close frame is seen."""
    async with run_server() as server, connect(server.url) as client:
        server.store.hold()
        await client.send(PCM)
        await client.send(DONE)
        await server.store.until_given()
        for _ in range(100):
            await client.send(bytes(60_000))
        server.store.release()
        heard = await hear(client)
        assert (heard.code, heard.reason) == (1000, "done")
        async with asyncio.timeout(1):  # the closing handshake was not waited out
            await client.wait_closed()
        assert len(server.store.published[0].pcm) == len(PCM)


async def test_the_deadline_follows_the_audio():
    """A client that speaks for longer than the idle time, in pieces, is not idle."""
    config = replace(CONFIG, limits=replace(LIMITS, idle_timeout_seconds=0.3))
    async with run_server(config) as server, connect(server.url) as client:
        listening = asyncio.create_task(hear(client))
        for _ in range(5):
            await client.send(PCM)
            await asyncio.wait([listening], timeout=0.1)
        await client.send(DONE)
        assert (await listening).reason == "done"
        assert server.store.published[0].pcm == PCM * 5
