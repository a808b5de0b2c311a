"""What tests of the gateway share: a fake store, a whole server, a client by hand.

It is part of the package so that tests of the pipeline and of other services can use it too.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed
from websockets.frames import Frame, Opcode

from speech_gateway import wav
from speech_gateway.admission import Admission
from speech_gateway.handshake import PATH
from speech_gateway.messages import Limits
from speech_gateway.metrics import Metrics
from speech_gateway.server import GatewayServer
from speech_gateway.server_config import ServerConfig
from speech_gateway.utterance import Context, Receipt, Tell, Utterance

LIMITS = Limits(
    max_chunk_bytes=65_536,
    max_audio_bytes=1_572_864 - wav.HEADER_BYTES,
    max_messages_per_second=200,
    idle_timeout_seconds=10.0,
    max_session_seconds=60.0,
)
"""The default limits."""

CONFIG = ServerConfig("127.0.0.1", 0, LIMITS)
"""A free port, and those limits."""

_PATIENCE_SECONDS = 10.0
_LOOK_EVERY_SECONDS = 0.005


@dataclass(frozen=True, slots=True)
class Published:
    """One utterance that the store was given."""

    context: Context
    utterance: Utterance

    @property
    def pcm(self) -> bytes:
        """The samples, without the WAV header."""
        return self.utterance.wav[wav.HEADER_BYTES :]


class FakeStore:
    """A `Store` that keeps each utterance, and answers when and as the test says.

    It answers at once, with offsets that count up from 0, unless `hold` was called. Its answer
    raises `failure`, and `publish` itself raises `defect`, where they are set.
    """

    def __init__(self) -> None:
        self.published: list[Published] = []
        self.failure: Exception | None = None
        self.defect: Exception | None = None
        self._may_answer = asyncio.Event()
        self._may_answer.set()
        self._given = asyncio.Condition()

    def publish(self, context: Context, utterance: Utterance) -> Awaitable[Receipt]:
        """Keep `utterance`; the awaitable ends as the test said."""
        if self.defect is not None:
            raise self.defect
        self.published.append(Published(context, utterance))
        return self._answer(offset=len(self.published) - 1)

    def hold(self) -> None:
        """Answer nothing until `release`."""
        self._may_answer.clear()

    def release(self) -> None:
        """Answer what waits, and whatever comes from now on."""
        self._may_answer.set()

    async def until_given(self, count: int = 1) -> list[Published]:
        """Wait until `count` utterances were published; return all of them."""
        async with asyncio.timeout(_PATIENCE_SECONDS), self._given:
            await self._given.wait_for(lambda: len(self.published) >= count)
        return self.published

    async def _answer(self, offset: int) -> Receipt:
        async with self._given:
            self._given.notify_all()
        await self._may_answer.wait()
        if self.failure is not None:
            raise self.failure
        return Receipt(f"event-{offset}", "speech.audio.ingress", partition=0, offset=offset)


@dataclass
class FakeAnswers:
    """`Answers` that the test gives: `tells` has who is expected, by correlation id."""

    tells: dict[str, Tell] = field(default_factory=dict)

    def expect(self, correlation_id: str, tell: Tell) -> Callable[[], None]:
        """Keep `tell`, until what is returned is called."""
        self.tells[correlation_id] = tell
        return lambda: self.tells.pop(correlation_id, None) and None


@dataclass
class Switch:
    """Whether the gateway is ready; tests turn it."""

    on: bool = True

    def __call__(self) -> bool:
        """Return the answer to `is_ready`."""
        return self.on


@dataclass
class RunningServer:
    """A server that listens on a port of its own, and everything it was given."""

    gateway: GatewayServer
    store: FakeStore
    ready: Switch
    port: int = field(init=False)

    @property
    def url(self) -> str:
        """Where clients connect."""
        return f"ws://127.0.0.1:{self.port}{PATH}"

    @property
    def live(self) -> int:
        """How many slots are taken."""
        return self.gateway.admission.live

    def drain(self, seconds: float) -> None:
        """Begin to drain, with a deadline in so many seconds."""
        self.gateway.drain(asyncio.get_running_loop().time() + seconds)


@contextlib.asynccontextmanager
async def run_server(
    config: ServerConfig = CONFIG,
    *,
    max_connections: int = 10,
    max_per_address: int = 10_000,
    sessions_per_second: int = 10_000,
    kind: type[GatewayServer] = GatewayServer,
) -> AsyncIterator[RunningServer]:
    """Run a whole server; drain and close it in the end.

    Raises:
        TimeoutError: The server does not end, because something leaks.
    """
    admission = Admission(max_connections, max_per_address, sessions_per_second)
    store, ready = FakeStore(), Switch()
    gateway = kind(config, store, admission, ready, Metrics())
    running = RunningServer(gateway, store, ready)
    running.port = await running.gateway.start()
    try:
        yield running
    finally:
        store.release()
        running.drain(0)
        async with asyncio.timeout(_PATIENCE_SECONDS):
            await running.gateway.close()


@dataclass(frozen=True, slots=True)
class Heard:
    """All that a server said until the connection was closed."""

    messages: list[dict[str, Any]]
    code: int | None
    reason: str | None


async def hear(client: ClientConnection) -> Heard:
    """Listen until the connection is closed."""
    messages = []
    with contextlib.suppress(ConnectionClosed):
        while True:
            messages.append(json.loads(await client.recv()))
    return Heard(messages, client.close_code, client.close_reason)


async def until(condition: Callable[[], bool], seconds: float = 5.0) -> None:
    """Wait until `condition` holds.

    Raises:
        TimeoutError: It does not in time.
    """
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - not every condition has an event
            await asyncio.sleep(_LOOK_EVERY_SECONDS)


class RawClient:
    """A WebSocket client by hand: it can send what no library sends, and never closes by itself."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    def send(self, *frames: Frame | bytes) -> None:
        """Send frames, or bytes as they are, in one TCP write."""
        self._writer.write(b"".join(map(_serialize, frames)))

    async def read_head(self) -> str:
        """Return the status line and the headers of an HTTP answer."""
        async with asyncio.timeout(_PATIENCE_SECONDS):
            return (await self._reader.readuntil(b"\r\n\r\n")).decode()

    async def read_rest(self) -> bytes:
        """Return what comes until the server ends its side, in any way."""
        received = bytearray()
        with contextlib.suppress(ConnectionError):
            async with asyncio.timeout(_PATIENCE_SECONDS):
                while data := await self._reader.read(65_536):
                    received += data
        return bytes(received)

    async def read_frame(self) -> Frame:
        """Return the next frame.

        Raises:
            asyncio.IncompleteReadError: The server has ended its side.
        """
        async with asyncio.timeout(_PATIENCE_SECONDS):
            head, length = await self._reader.readexactly(2)
            if length == 126:  # noqa: PLR2004 - RFC 6455 section 5.2
                length = int.from_bytes(await self._reader.readexactly(2), "big")
            data = await self._reader.readexactly(length)
        return Frame(Opcode(head & 0x0F), data, bool(head & 0x80))

    def stop_reading(self) -> None:
        """Read nothing more of what the server sends."""
        self._writer.transport.pause_reading()  # type: ignore[attr-defined]

    def end_sending(self) -> None:
        """End this side of TCP and keep the other."""
        self._writer.write_eof()

    def reset(self) -> None:
        """Break the connection."""
        self._writer.transport.abort()


@contextlib.asynccontextmanager
async def raw_client(
    port: int, head: bytes | None = None, *, upgrade: bool = True, source: str = "127.0.0.1"
) -> AsyncIterator[RawClient]:
    """Open TCP to a server and send a request; break the connection in the end.

    Args:
        port: The server's, on 127.0.0.1.
        head: The request, by default one that the gateway admits.
        upgrade: Whether to wait for the 101.
        source: The client's own address, anywhere in 127.0.0.0/8.
    """
    reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(source, 0))
    client = RawClient(reader, writer)
    try:
        client.send(request() if head is None else head)
        if upgrade:
            answer = await client.read_head()
            if not answer.startswith("HTTP/1.1 101 "):
                raise ConnectionRefusedError(answer)
        yield client
    finally:
        writer.transport.abort()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


_UPGRADE = (
    ("Host", "gateway"),
    ("Connection", "Upgrade"),
    ("Upgrade", "websocket"),
    ("Sec-WebSocket-Version", "13"),
    ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
)


def request(
    target: str = PATH,
    *,
    method: str = "GET",
    version: str = "HTTP/1.1",
    headers: Iterable[tuple[str, str]] = (),
    without: frozenset[str] = frozenset(),
) -> bytes:
    """Return a handshake with more `headers`, and `without` some that it should have."""
    lines = [f"{method} {target} {version}"]
    kept = [(name, value) for name, value in _UPGRADE if name not in without]
    lines += [f"{name}: {value}" for name, value in [*kept, *headers]]
    return "\r\n".join([*lines, "", ""]).encode()


def _serialize(frame: Frame | bytes) -> bytes:
    return frame.serialize(mask=True) if isinstance(frame, Frame) else frame
