"""The wait for a text over real sockets: who is expected when, and what is told of the wait."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace

import pytest
from prometheus_client import CollectorRegistry
from speech_gateway.errors import NoText
from speech_gateway.testing import CONFIG, FakeAnswers, RunningServer, hear, run_server, until
from speech_gateway.utterance import Answer, Text
from speech_lib.testing.spans import KeptSpans
from structlog.testing import capture_logs
from websockets.asyncio.client import ClientConnection, connect

pytestmark = pytest.mark.anyio

PCM = bytes(640)
DONE = '{"event":"done"}'
TEXT = Text("go forward", "en", 0.5, "event-of-the-text", "speech.asr.text", 0, 7)


@dataclass
class Waiting:
    """A client that has its receipt, the server, and what its text is awaited by."""

    server: RunningServer
    client: ClientConnection
    answers: FakeAnswers

    def answer(self, answer: Answer) -> None:
        (tell,) = self.answers.tells.values()
        tell(answer)

    def sample(self, name: str, **labels: str) -> float | None:
        registry: CollectorRegistry = self.server.gateway.metrics.registry
        return registry.get_sample_value(f"speech_gateway_{name}", labels)


@contextlib.asynccontextmanager
async def waiting(**config: float) -> AsyncIterator[Waiting]:
    async with run_server(replace(CONFIG, **config)) as server:
        answers = server.gateway.answers = FakeAnswers()
        async with connect(f"{server.url}?results=text") as client:
            await client.recv()
            await client.send(PCM)
            await client.send(DONE)
            assert json.loads(await client.recv())["status"] == "accepted"
            yield Waiting(server, client, answers)


async def test_a_text_is_expected_before_its_utterance_is_handed_over():
    """So a recogniser can be as fast as it likes; and nothing is told before `accepted`."""
    async with run_server() as server:
        answers = server.gateway.answers = FakeAnswers()
        server.store.hold()
        async with connect(f"{server.url}?results=text") as client:
            await client.send(PCM)
            await client.send(DONE)
            (published,) = await server.store.until_given()
            answers.tells[published.context.correlation_id](TEXT)
            await asyncio.sleep(0)
            server.store.release()
            heard = await hear(client)
    assert [each["status"] for each in heard.messages] == ["connected", "accepted", "recognized"]


async def test_a_session_that_has_ended_expects_nothing():
    """Its text may come, and finds nobody."""
    async with waiting() as told:
        told.answer(TEXT)
        await hear(told.client)
        await until(lambda: not told.answers.tells)


async def test_who_wants_no_text_is_not_expected():
    """Nothing is kept for a client that did not ask."""
    async with run_server() as server:
        answers = server.gateway.answers = FakeAnswers()
        async with connect(server.url) as client:
            await client.recv()
            assert answers.tells == {}


async def test_whoever_leaves_while_waiting_gives_the_slot_back():
    """Nobody else waits for a text that nobody wants."""
    async with waiting(result_timeout=600.0) as left:
        left.client.transport.abort()
        await until(lambda: left.server.live == 0, seconds=1.0)
        assert left.answers.tells == {}


async def test_a_drain_ends_the_wait_at_its_deadline():
    """With `result_timeout`: the audio is stored, and the text will be on the topic."""
    async with waiting(result_timeout=600.0) as waiter:
        waiter.server.drain(0.1)
        heard = await hear(waiter.client)
    assert [(each["code"], each["stored"]) for each in heard.messages] == [
        ("result_timeout", "yes")
    ]
    assert (heard.code, heard.reason) == (1013, "result_timeout")


@pytest.mark.parametrize(
    ("answer", "outcome", "error"),
    [
        (TEXT, "recognized", None),
        (NoText.NOT_RECOGNIZED, "not_recognized", "not_recognized"),
        (None, "left", None),
    ],
    ids=["text", "dead letter", "left"],
)
async def test_what_is_told_of_a_wait(answer, outcome, error):
    """A span below the session's, the count, and the session's line."""
    with capture_logs() as logs:
        async with waiting() as waiter:
            sink = waiter.server.gateway.spans = KeptSpans()
            assert waiter.sample("results_waiting") == 1
            waiter.answer(answer) if answer else await waiter.client.close()
            await hear(waiter.client)
            await until(lambda: waiter.server.live == 0)
            assert waiter.sample("results_waiting") == 0
            assert waiter.sample("results_total", outcome=outcome) == 1
            assert waiter.sample("result_seconds_count") == (outcome == "recognized")
    session, wait = sink.spans
    assert (wait.name, wait.parent, wait.error) == ("await text", session.context, error)
    assert (wait.attributes["speech.result"], wait.end_ns) == (outcome, session.end_ns)
    assert session.start_ns < wait.start_ns <= wait.end_ns
    (line,) = [each for each in logs if each["event"] == "session"]
    assert (line["outcome"], line["result"]) == ("accepted", outcome)
