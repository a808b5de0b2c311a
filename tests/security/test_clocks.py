"""The clocks of a client, in real time, on the defaults of the live service.

The rules are tried on a fake clock in the gateway's own tests; here a gateway as a process of its
own, told nothing but its ports, has to keep them. All clients are there at the same time, so that
the whole takes as long as the longest clock.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import pytest
from speech_gateway.testing import hear, raw_client, request
from speech_lib.testing.embedded import EmbeddedPipeline
from speech_tools import stack
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

pytestmark = [pytest.mark.security, pytest.mark.timeout(100)]

HANDSHAKE_SECONDS, IDLE_SECONDS, SESSION_SECONDS = 5.0, 10.0, 60.0
EARLY_SECONDS, LATE_SECONDS = 1.0, 5.0
"""How far off an end may be: late by more than the documents grant, as the machine may be busy."""
OFTEN = 0.5
LATE = 5.0
"""When a client that speaks twice does so for the second time."""
DRIBBLE = 4.5
DRIBBLES = 14
"""From the start to 58.5 s: the next one would be 3 s too late."""
SAMPLE = b"\x01\x00"

Habit = Callable[[ClientConnection], Awaitable[object]]


@dataclass(frozen=True)
class End:
    """How a client's connection ended, and after how many seconds."""

    seconds: float
    final: dict[str, Any]
    code: int | None
    reason: str | None


def repeatedly(act: Habit, every: float = OFTEN) -> Habit:
    """Do something until the connection is closed."""

    async def habit(client: ClientConnection) -> None:
        while True:
            await act(client)
            await asyncio.sleep(every)

    return habit


async def say_nothing(_: ClientConnection) -> None:
    """Connect, and that is all."""


async def speak_twice(client: ClientConnection) -> None:
    """Speak at once and once more, long enough for two."""
    await client.send(SAMPLE)
    await asyncio.sleep(LATE)
    await client.send(SAMPLE)


async def pong_with_text(client: ClientConnection) -> None:
    """Answer a ping that nobody has sent."""
    await client.pong(b"still here")


async def never_end_a_message(client: ClientConnection) -> None:
    """Send one message in fragments, without a last one."""

    async def fragments():
        while True:
            yield SAMPLE
            await asyncio.sleep(OFTEN)

    await client.send(fragments())


IDLE: dict[str, Habit] = {
    "silent": say_nothing,
    "pings": repeatedly(lambda client: client.ping()),
    "text pongs": repeatedly(pong_with_text),
    "empty messages": repeatedly(lambda client: client.send(b"")),
    "a message without end": never_end_a_message,
}
"""None of this is audio, so none of it moves the clock."""


async def end_of(url: str, habit: Habit) -> End:
    """Connect, behave as told, and hear the gateway out."""
    async with connect(url, compression=None, ping_interval=None) as client:
        began = time.monotonic()
        acting = asyncio.create_task(swallow_close(habit(client)))
        heard = await hear(client)
        seconds = time.monotonic() - began
        acting.cancel()
        await asyncio.gather(acting, return_exceptions=True)
    greeting, final = heard.messages
    assert greeting["status"] == "connected"
    return End(seconds, final, heard.code, heard.reason)


async def swallow_close(acting: Awaitable[object]) -> None:
    """End with the connection."""
    with suppress(ConnectionClosed):
        await acting


async def half_open(port: int, sent: bytes) -> float:
    """Begin a handshake, a byte at a time, and never end it; return when it was cut."""
    async with raw_client(port, b"", upgrade=False) as client:
        began = time.monotonic()
        dribble = asyncio.create_task(send_slowly(client.send, sent))
        assert await client.read_rest() == b""
        seconds = time.monotonic() - began
        dribble.cancel()
        await asyncio.gather(dribble, return_exceptions=True)
    return seconds


async def send_slowly(send: Callable[[bytes], None], data: bytes) -> None:
    """Send a byte every now and then, fewer than would end the request in time."""
    for byte in data:
        send(bytes([byte]))
        await asyncio.sleep(OFTEN)


@dataclass(frozen=True)
class Ends:
    """What became of all clients, who were there at the same time."""

    idle: dict[str, End]
    twice: End
    dribbled: End
    half_open: list[float]


async def all_ends(url: str) -> Ends:
    """Have every client live its life beside the others."""
    port = int(url.rpartition(":")[2].partition("/")[0])
    async with asyncio.TaskGroup() as together:
        idle = {name: together.create_task(end_of(url, habit)) for name, habit in IDLE.items()}
        twice = together.create_task(end_of(url, speak_twice))
        dribbled = together.create_task(
            end_of(url, repeatedly(lambda client: client.send(SAMPLE), DRIBBLE))
        )
        cut = [together.create_task(half_open(port, sent)) for sent in (b"", request())]
    return Ends(
        {name: task.result() for name, task in idle.items()},
        twice.result(),
        dribbled.result(),
        [task.result() for task in cut],
    )


@pytest.fixture(scope="module")
def ends(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ends]:
    """Run them once, against a gateway on its defaults."""
    logs = tmp_path_factory.mktemp("logs")
    with (
        EmbeddedPipeline(["speech.audio.ingress"]) as kafka,
        stack.gateway(kafka, logs) as gateway,
    ):
        yield asyncio.run(all_ends(gateway.url))


def about(seconds: float) -> object:
    """Return what equals a time that is neither early nor too late."""
    middle = seconds + (LATE_SECONDS - EARLY_SECONDS) / 2
    return pytest.approx(middle, abs=(LATE_SECONDS + EARLY_SECONDS) / 2)


def told(end: End, *names: str) -> dict[str, Any]:
    """Return some of what the final message said, and how the connection was closed."""
    return {name: end.final.get(name) for name in ("status", *names)} | {
        "closed": (end.code, end.reason)
    }


@pytest.mark.parametrize("habit", IDLE)
def test_only_audio_moves_the_idle_clock(ends, habit):
    """After 10 s without audio it is over, and without a sample there is nothing to store."""
    end = ends.idle[habit]
    assert end.seconds == about(IDLE_SECONDS)
    assert told(end, "code", "stored", "retryable") == {
        "status": "error",
        "code": "idle_timeout",
        "stored": "no",
        "retryable": True,
        "closed": (1001, "idle_timeout"),
    }


def test_the_idle_clock_starts_anew_with_audio(ends):
    """Who has spoken gets 10 s more, and what was said is stored."""
    assert ends.twice.seconds == about(LATE + IDLE_SECONDS)
    assert told(ends.twice, "ended_by", "audio_bytes") == {
        "status": "accepted",
        "ended_by": "idle_timeout",
        "audio_bytes": 2 * len(SAMPLE),
        "closed": (1001, "idle_timeout"),
    }


def test_dribbled_audio_does_not_outlive_the_session(ends):
    """A sample now and then is not idle; after 60 s what was said is stored, and it is over."""
    assert ends.dribbled.seconds == about(SESSION_SECONDS)
    assert told(ends.dribbled, "ended_by", "audio_bytes") == {
        "status": "accepted",
        "ended_by": "session_expired",
        "audio_bytes": len(SAMPLE) * DRIBBLES,
        "closed": (1008, "session_expired"),
    }


def test_a_handshake_has_five_seconds_in_all(ends):
    """Bytes that keep coming do not prolong it any more than silence does."""
    assert ends.half_open == [about(HANDSHAKE_SECONDS)] * 2
