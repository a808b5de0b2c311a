"""What a gateway's memory is made of: idle, per connection, full buffers, and their common end."""

import asyncio
import json
from contextlib import AsyncExitStack

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException

from speech_tools.bench import clients
from speech_tools.bench.clients import DONE, MESSAGE_BYTES, BenchError
from speech_tools.bench.result import Line, spreads
from speech_tools.bench.servers import Server

CONNECTIONS = 200
BUFFERS = 10
MB = "MB"
KB = "KB"
TIMES_AUDIO = "times the audio"
_SETTLE_SECONDS = 30.0

Found = dict[str, float]


async def measure(gateway: Server, started: int) -> Found:
    """Return the figures of a gateway that took `started` bytes and has now stored an utterance.

    Raises:
        BenchError: It refused something, or was not reached.
    """
    try:
        idle = gateway.memory_bytes()
        each = await _idle_connections(gateway, idle)
        before = gateway.memory_bytes()
        audio, full, peak = await _full_buffers(gateway)
    except (OSError, WebSocketException) as error:
        raise BenchError(f"{gateway.url}: {str(error) or type(error).__name__}") from error
    return {
        "started": started / 1e6,
        "idle": idle / 1e6,
        "connection": each / 1e3,
        "audio": audio / 1e6,
        "full": (full - before) / 1e6,
        "peak": (peak - before) / 1e6,
    }


async def _idle_connections(gateway: Server, idle: int) -> float:
    async with AsyncExitStack() as stack:
        for _ in range(CONNECTIONS):
            await _greeted(gateway, stack)
        return (gateway.memory_bytes() - idle) / CONNECTIONS


async def _greeted(gateway: Server, stack: AsyncExitStack) -> tuple[ClientConnection, int]:
    """Return a connection that has been greeted, and the bytes of audio that it may send."""
    opening = connect(gateway.url, compression=None, ping_interval=None, close_timeout=2)
    connection = await stack.enter_async_context(opening)
    greeting = json.loads(await connection.recv())
    if greeting.get("status") != "connected":
        raise BenchError(f"a client was not greeted: {greeting.get('code')}")
    return connection, int(greeting["limits"]["max_audio_bytes"])


async def _full_buffers(gateway: Server) -> tuple[int, int, int]:
    """Return the audio of all, the memory while it is all there, and the peak as all end."""
    async with AsyncExitStack() as stack:
        speakers = [await _greeted(gateway, stack) for _ in range(BUFFERS)]
        count = speakers[0][1] // MESSAGE_BYTES
        audio = BUFFERS * count * MESSAGE_BYTES
        gateway.forget_peak()
        await asyncio.gather(*(_fill(connection, count) for connection, _ in speakers))
        full = gateway.memory_bytes()
        await asyncio.gather(*(connection.send(DONE) for connection, _ in speakers))
        async with asyncio.timeout(_SETTLE_SECONDS):
            await asyncio.gather(*(clients.accepted(connection) for connection, _ in speakers))
        return audio, full, gateway.memory_bytes("VmHWM")


async def _fill(connection: ClientConnection, count: int) -> None:
    message = bytes(MESSAGE_BYTES)
    for _ in range(count):
        await connection.send(message)
    await (await connection.ping())  # its pong says that all of it was read


def lines(part: str, rounds: list[Found]) -> list[Line]:
    """Put the rounds together."""
    of = spreads(rounds)
    ratio = spreads(
        [{name: each[name] / each["audio"] for name in ("full", "peak")} for each in rounds]
    )
    full = {MB: of["full"], TIMES_AUDIO: ratio["full"]}
    peak = {MB: of["peak"], TIMES_AUDIO: ratio["peak"]}
    buffers = f"{BUFFERS} full buffers"
    return [
        Line(part, "just started", "RSS", {MB: of["started"]}),
        Line(part, "idle after an utterance", "RSS", {MB: of["idle"]}),
        Line(part, f"each of {CONNECTIONS} idle connections", "over idle", {KB: of["connection"]}),
        Line(part, buffers, "over idle", full),
        Line(part, f"{buffers}, as all end", "peak over idle", peak),
    ]
