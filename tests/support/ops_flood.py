"""Clients who ask an operations port for its metrics without end, as fast as they can.

Each is a process of its own at the lowest priority, as in `flood`. Used by the tests of the
operations port.
"""

import select
import socket
import time
from concurrent.futures import Future
from contextlib import AbstractContextManager, suppress

from support.strangers import at_work

_PATIENCE_SECONDS = 5.0
_READ_BYTES = 1 << 20
_REQUESTS = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n" * 2_000


def askers(port: int, seconds: float, count: int = 4) -> AbstractContextManager[list[Future[int]]]:
    """Run askers for so many seconds; how many bytes each was sent is known afterwards."""
    return at_work(count, ask, port, seconds)


def ask(port: int, seconds: float) -> int:
    """Ask again and again, without waiting for answers; return the bytes of the answers."""
    deadline, answered = time.monotonic() + seconds, 0
    while time.monotonic() < deadline:
        with (
            suppress(OSError),
            socket.create_connection(("127.0.0.1", port), _PATIENCE_SECONDS) as it,
        ):
            it.setblocking(False)
            answered += _push(it, deadline)
    return answered


def _push(connection: socket.socket, deadline: float) -> int:
    """Send and read until the server closes; return the bytes that were read."""
    left, answered = memoryview(_REQUESTS), 0
    while (now := time.monotonic()) < deadline:
        readable, writable, _ = select.select([connection], [connection], [], deadline - now)
        try:
            if readable:
                if not (heard := len(connection.recv(_READ_BYTES))):
                    break
                answered += heard
            if writable:
                left = left[connection.send(left) :] or memoryview(_REQUESTS)
        except ConnectionError:
            break
    return answered
