"""Clients who flood a gateway with frames, and what a third client feels of them.

Each connection comes from another address of this machine, so that it is not the bounds by address
that are seen.

Each flooder is a process of its own that sends as fast as it can, leaves as soon as it is told that
it is cut, and is back at once. They run at the lowest priority, so that with few cores it is the
gateway that is measured, and not how the system shares out its processors. Used by the tests of
floods.
"""

import asyncio
import select
import socket
import time
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from itertools import cycle

from speech_gateway.testing import request
from speech_tools.speakers import say
from websockets.frames import Frame, Opcode

from support.strangers import at_work

_PATIENCE_SECONDS = 5.0
_SEND_BUFFER_BYTES = 65_536
"""Of the flooder's socket: what it has sent is what the gateway has taken, but for this."""
_PAYLOAD_BYTES = 65_536
_CUT = b"rate_limited"

_addresses = cycle(f"127.0.{net}.{host}" for net in range(16, 32) for host in range(1, 255))

_UTTERANCE = bytes(16_000)
_PAUSE_SECONDS = 0.01


@dataclass(frozen=True, slots=True)
class Flood:
    """What a flooder sends.

    Attributes:
        frames: again and again.
        first: before all else.
        reads: whether the flooder takes what the gateway sends.
    """

    frames: tuple[Frame, ...]
    first: tuple[Frame, ...] = ()
    reads: bool = True

    def opening(self) -> bytes:
        """Return the first bytes."""
        return _serialize(self.first)

    def payload(self) -> bytes:
        """Return the bytes to be repeated, more than fit into one write."""
        once = _serialize(self.frames)
        return once * (1 + _PAYLOAD_BYTES // len(once))


_PING = Frame(Opcode.PING, b"")
_BEGINNING = Frame(Opcode.BINARY, b"\0", fin=False)
_FRAGMENT = Frame(Opcode.CONT, b"\0", fin=False)

FLOODS = {
    "pings": Flood((_PING,)),
    "long pings": Flood((Frame(Opcode.PING, bytes(125)),)),
    "unread pings": Flood((_PING,), reads=False),
    "unread long pings": Flood((Frame(Opcode.PING, bytes(125)),), reads=False),
    "pongs": Flood((Frame(Opcode.PONG, b""),)),
    "empty messages": Flood((Frame(Opcode.BINARY, b""),)),
    "one-byte messages": Flood((Frame(Opcode.BINARY, b"\0"),)),
    "empty continuations": Flood((Frame(Opcode.CONT, b"", fin=False),), (_BEGINNING,)),
    "65,536 one-byte fragments": Flood(
        (_BEGINNING, *[_FRAGMENT] * 65_534, Frame(Opcode.CONT, b"\0"))
    ),
}


@dataclass(frozen=True, slots=True)
class Flooded:
    """What became of one flooder.

    Attributes:
        connections: How often it was admitted.
        longest: Seconds of the longest connection, up to the moment when the flooder knew its end.
        sent: Bytes that the system took from it, in all.
    """

    connections: int
    longest: float
    sent: int


def flooders(
    kind: str, port: int, seconds: float, count: int = 2
) -> AbstractContextManager[list[Future[Flooded]]]:
    """Run flooders for so many seconds; what became of them is known afterwards."""
    return at_work(count, flood, kind, port, seconds)


def flood(kind: str, port: int, seconds: float) -> Flooded:
    """Flood, one connection after the other."""
    deadline = time.monotonic() + seconds
    lives, sent = [0.0], 0
    while time.monotonic() < deadline:
        # Refused, perhaps: the last connection may not be gone yet.
        with suppress(OSError), _admitted(port) as connection:
            began = time.monotonic()
            sent += _push(connection, FLOODS[kind], deadline)
            lives.append(time.monotonic() - began)
    return Flooded(len(lives) - 1, max(lives), sent)


@contextmanager
def _admitted(port: int) -> Iterator[socket.socket]:
    with socket.socket() as connection:
        connection.bind((next(_addresses), 0))
        connection.settimeout(_PATIENCE_SECONDS)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
        connection.connect(("127.0.0.1", port))
        connection.sendall(request())
        if not connection.recv(4096).startswith(b"HTTP/1.1 101 "):
            raise ConnectionRefusedError
        yield connection


def _push(connection: socket.socket, what: Flood, deadline: float) -> int:
    """Send until cut; return the bytes that were taken."""
    connection.setblocking(False)
    listeners = [connection] if what.reads else []
    payload = memoryview(what.payload())
    left, sent = memoryview(what.opening() + payload), 0
    while (now := time.monotonic()) < deadline:
        readable, writable, _ = select.select(listeners, [connection], [], deadline - now)
        try:
            if readable and (not (heard := connection.recv(65_536)) or _CUT in heard):
                break
            if writable:
                taken = connection.send(left)
                sent, left = sent + taken, left[taken:] or payload
        except ConnectionError:
            break
    return sent


def _serialize(frames: tuple[Frame, ...]) -> bytes:
    return b"".join(frame.serialize(mask=True) for frame in frames)


async def speak(url: str, seconds: float) -> list[float]:
    """Have utterance after utterance stored; return the seconds from each connect to `accepted`."""
    took = []
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        spoken = await say(url, _UTTERANCE, paced=False, source=next(_addresses))
        if spoken.code:
            raise RuntimeError(f"not stored: {spoken.error or spoken.code}")
        took.append(spoken.answered - spoken.began)
        await asyncio.sleep(_PAUSE_SECONDS)
    return took
