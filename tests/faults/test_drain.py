"""Ten clients speak when the gateway is told to stop: each keeps what it has said."""

import asyncio
import json
import random
import signal
import time
from collections import Counter
from dataclasses import dataclass, field
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest
from speech_tools import client
from support.ledger import Findings, Operation
from websockets.asyncio.client import connect

CLIENTS = 10
DRAIN_SECONDS = 4
DELIVERY_SECONDS = 10
CHUNK_SECONDS = 0.1
CHUNK_BYTES = 3_200
UTTERANCE_BYTES = 300 * CHUNK_BYTES
"""Longer than any of them can speak."""


@dataclass
class Speaker:
    """A client at the pace of speech, who ends when told of the drain, or goes on for ever."""

    number: int
    ends_in_time: bool
    pcm: bytes = field(repr=False)
    frames: list[dict] = field(default_factory=list)
    sent: int = 0
    close_code: int | None = None
    speaking: asyncio.Event = field(default_factory=asyncio.Event)
    told: asyncio.Event = field(default_factory=asyncio.Event)

    async def speak(self, url: str) -> Operation:
        began = time.monotonic()
        async with connect(url, compression=None) as connection:
            sender = asyncio.create_task(self._send(connection))
            async for message in connection:
                self.frames.append(json.loads(message))
                if self.frames[-1]["status"] == "draining":
                    self.told.set()
            self.close_code = connection.close_code
            sender.cancel()
            await asyncio.gather(sender, return_exceptions=True)
        final = self.frames[-1] if len(self.frames) > 1 else None
        said = self.pcm[: self.sent] if self.ends_in_time else self.pcm
        name = self.frames[0]["correlation_id"]
        return Operation(self.number, said, True, name, final, began, time.monotonic())

    async def _send(self, connection) -> None:
        for start in range(0, len(self.pcm), CHUNK_BYTES):
            if self.ends_in_time and self.told.is_set():
                await connection.send(json.dumps({"event": "done"}))
                return
            await connection.send(self.pcm[start : start + CHUNK_BYTES])
            self.sent += CHUNK_BYTES
            self.speaking.set()
            await asyncio.sleep(CHUNK_SECONDS)  # the pace of speech


def readiness(port: int) -> tuple[int, dict]:
    """Return status and body of `/readyz`."""
    try:
        with urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5) as answer:
            return answer.status, json.load(answer)
    except HTTPError as error:
        with error:
            return error.code, json.load(error)


async def drain(gateway, speakers: list[Speaker]) -> tuple[list[Operation], int, dict]:
    """Stop the gateway while all of them speak.

    Returns:
        What they were told, and readiness as it was when the first of them was told.
    """
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(each.speak(gateway.url)) for each in speakers]
        await asyncio.gather(*(each.speaking.wait() for each in speakers))
        assert (await asyncio.to_thread(readiness, gateway.ops_port))[0] == 200
        gateway.signal(signal.SIGTERM)
        waiting = [asyncio.create_task(each.told.wait()) for each in speakers]
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        status, body = await asyncio.to_thread(readiness, gateway.ops_port)
        with pytest.raises(client.Refused, match="503 draining"):
            await client.stream(gateway.url, bytes(CHUNK_BYTES), paced=False)
        await asyncio.gather(*waiting)
    return [task.result() for task in tasks], status, body


def test_ten_live_streams_are_drained(start_gateway, topics, reckon, chance: random.Random):
    """Not ready and nobody new; who ends in time is accepted, the rest is kept at the deadline."""
    speakers = [
        Speaker(number, number % 2 == 0, chance.randbytes(UTTERANCE_BYTES))
        for number in range(CLIENTS)
    ]
    with start_gateway(DRAIN_SECONDS=str(DRAIN_SECONDS)) as gateway:
        operations, status, body = asyncio.run(drain(gateway, speakers))
        assert gateway.wait(DELIVERY_SECONDS) == 0
    findings, _ = reckon(operations, topics["TOPIC_AUDIO_INGRESS"])
    assert findings == Findings()
    assert (status, body["reasons"]) == (503, {"service": "draining"})
    assert [[frame["status"] for frame in each.frames] for each in speakers] == [
        ["connected", "draining", "accepted"]
    ] * CLIENTS
    assert Counter((each.frames[-1]["ended_by"], each.close_code) for each in speakers) == {
        ("done", 1000): CLIENTS // 2,
        ("shutting_down", 1001): CLIENTS // 2,
    }
