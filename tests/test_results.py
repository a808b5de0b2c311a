"""The text comes back on the connection that it was spoken on: whole services, a broker between."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from speech_tools import stack
from websockets.asyncio.client import ClientConnection, connect

pytestmark = [pytest.mark.pipeline, pytest.mark.timeout(120)]

GO_FORWARD = (Path(__file__).parent.parent / "samples" / "go-forward-ten-meters.raw").read_bytes()
CHUNK_BYTES = 32_000
DONE = json.dumps({"event": "done"})


@pytest.fixture(scope="module")
def url(pipeline, topics, logs) -> Iterator[str]:
    with (
        stack.gateway(pipeline, logs, {**topics.names, "RESULTS": "on"}) as gateway,
        stack.recogniser(pipeline, logs, topics.names),
    ):
        yield gateway.url


@asynccontextmanager
async def conversation(url: str, query: str) -> AsyncIterator[ClientConnection]:
    async with connect(f"{url}?{query}") as connection:
        yield connection


async def speak(url: str, query: str, pcm: bytes) -> tuple[list[dict], int, str]:
    """Say an utterance; return every message, and how the connection was closed."""
    async with connect(f"{url}?{query}") as connection:
        for begin in range(0, len(pcm), CHUNK_BYTES):
            await connection.send(pcm[begin : begin + CHUNK_BYTES])
        await connection.send(DONE)
        messages = [json.loads(message) async for message in connection]
    return messages, connection.close_code, connection.close_reason


def test_the_text_follows_the_receipt(url, topics):
    """A client that asks for it gets its text after `accepted`, and then the usual close."""
    messages, code, reason = asyncio.run(speak(url, "results=text&client_ref=a.b~c-1", GO_FORWARD))
    greeting, receipt, told = messages
    assert greeting["client_ref"] == "a.b~c-1"
    assert greeting["results"] == {"timeout_seconds": 30.0}
    assert [each["status"] for each in messages] == ["connected", "accepted", "recognized"]
    event = topics.text(receipt["correlation_id"])
    assert told["text"] == event.payload.text
    assert (code, reason) == (1000, "done")
