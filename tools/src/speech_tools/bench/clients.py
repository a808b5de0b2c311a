"""The clients of a measurement. They do the same to every server, and check each answer."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from dataclasses import dataclass
from functools import cache
from typing import TypeVar

from speech_lib.events import BYTES_PER_SECOND
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException
from websockets.frames import Frame, Opcode

DONE = json.dumps({"event": "done"})
ANSWER_TIMEOUT_SECONDS = 60.0
BLOCK_BYTES = 262_144
"""What a burst writes at once, at least one message."""
MESSAGE_BYTES = 3_200
"""What the greeting recommends: 100 ms."""
OPENING_AT_ONCE = 20
"""Handshakes under way at once."""


T = TypeVar("T")


class BenchError(Exception):
    """A server did not do what the measurement needs. The text is the one line for the user."""


async def burst(url: str, message_bytes: int, utterance_bytes: int) -> float:
    """Send one utterance as fast as the server takes it.

    Returns:
        Seconds from the end of the audio to `accepted`.

    Raises:
        BenchError: The server refused it, or was not reached.
    """
    return await _speak(url, lambda speech: _send_at_once(speech, message_bytes, utterance_bytes))


async def said(url: str, pcm: bytes) -> float:
    """Send this utterance as fast as the server takes it. Returns and raises as `burst` does."""

    async def send(connection: ClientConnection) -> None:
        for start in range(0, len(pcm), MESSAGE_BYTES):
            await connection.send(pcm[start : start + MESSAGE_BYTES])

    return await _speak(url, send)


async def live(url: str, streams: int, message_bytes: int, count: int) -> list[float]:
    """Let `streams` clients speak at the pace of speech, all at the same time.

    Each says two utterances: a part of one, which is longer from stream to stream, and a whole one
    of `count` messages. So they begin at once and are all there for the length of the whole one,
    but end one after another, as people do.

    Returns:
        For each utterance the seconds from the end of its audio to `accepted`.

    Raises:
        BenchError: The server refused one, or was not reached.
    """
    turn = asyncio.Semaphore(OPENING_AT_ONCE)
    interval = message_bytes / BYTES_PER_SECOND

    async def speak(number: int) -> list[float]:
        delay = interval * number / streams
        counts = part_of(count, number, streams), count
        paces = (_Pace(message_bytes, each, interval, delay) for each in counts)
        return [await _speak(url, pace, turn) for pace in paces]

    waits = await _together(speak(number) for number in range(streams))
    return [wait for each in waits for wait in each]


def part_of(count: int, number: int, streams: int) -> int:
    """Return how many messages the first utterance of a stream has."""
    return max(1, count * (number + 1) // streams)


async def at_once(
    url: str, clients: int, message_bytes: int, count: int, speed: float
) -> list[float]:
    """Let `clients` say `count` messages each, `speed` times faster than speech.

    They end within one interval of their messages. Returns and raises as `live` does.
    """
    turn = asyncio.Semaphore(OPENING_AT_ONCE)
    interval = message_bytes / BYTES_PER_SECOND / speed
    paces = (
        _Pace(message_bytes, count, interval, interval * each / clients) for each in range(clients)
    )
    return await _together(_speak(url, pace, turn) for pace in paces)


async def _together(speaking: Iterable[Coroutine[None, None, T]]) -> list[T]:
    try:
        async with asyncio.TaskGroup() as group:
            speakers = [group.create_task(each) for each in speaking]
    except* BenchError as several:
        first = several.exceptions[0]
        raise BenchError(str(first)) from first
    return [each.result() for each in speakers]


async def _send_at_once(connection: ClientConnection, message_bytes: int, total: int) -> None:
    """Write frames that are built beforehand, many at once.

    With one system call for each message the client is slower than the servers, which then do not
    run at full speed, and the ratios flatter the gateway.
    """
    frame = _frame(message_bytes)
    at_once = max(1, BLOCK_BYTES // message_bytes)
    left = total // message_bytes
    while left:
        count = min(left, at_once)
        connection.transport.write(frame * count)
        await connection.drain()
        left -= count


@cache
def _frame(message_bytes: int) -> bytes:
    return Frame(Opcode.BINARY, bytes(message_bytes)).serialize(mask=True)


@dataclass(frozen=True, slots=True)
class _Pace:
    """Sends messages at the times at which a microphone would have filled them.

    Attributes:
        message_bytes: Length of each.
        count: How many.
        interval: Seconds from one to the next.
        delay: Seconds before the first one.
    """

    message_bytes: int
    count: int
    interval: float
    delay: float

    async def __call__(self, connection: ClientConnection) -> None:
        frame, began = _frame(self.message_bytes), time.monotonic() + self.delay
        for index in range(self.count):
            await asyncio.sleep(began + index * self.interval - time.monotonic())
            connection.transport.write(frame)
            await connection.drain()


async def _speak(
    url: str,
    send: Callable[[ClientConnection], Awaitable[None]],
    turn: asyncio.Semaphore | None = None,
) -> float:
    try:
        async with turn or asyncio.Semaphore():
            connection = await connect(url, compression=None, ping_interval=None, close_timeout=2)
        async with connection:
            await send(connection)
            await connection.send(DONE)
            ended = time.monotonic()
            async with asyncio.timeout(ANSWER_TIMEOUT_SECONDS):
                await accepted(connection)
            return time.monotonic() - ended
    except (OSError, WebSocketException) as error:  # TimeoutError is an OSError
        raise BenchError(f"{url}: {str(error) or type(error).__name__}") from error


async def accepted(connection: ClientConnection) -> None:
    """Wait for it. Raises BenchError where something else comes."""
    async for text in connection:
        answer = json.loads(text)
        if answer.get("status") == "accepted":
            return
        if answer.get("status") == "error":
            raise BenchError(f"an utterance was not accepted: {answer.get('code')}")
    raise BenchError("the server closed without an answer")
