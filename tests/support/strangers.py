"""Clients who never get as far as a session: heads of any size, connects without a word.

Each runs in a process of its own, from addresses of 127.0.0.0/8 that it is given, and is the same
single loop over plain sockets, so that the attacker costs less than the gateway. Used by the tests
of floods and storms.
"""

import os
import select
import socket
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from itertools import cycle, islice
from multiprocessing import get_context
from typing import TypeVar

T = TypeVar("T")

_LOWEST_PRIORITY = 19
_PATIENCE_SECONDS = 10.0
_HEADS_A_WAVE = 100
_WAVE_SECONDS = 1.0
_HELD = 300
"""Silent connections that one stranger keeps; more than any bound of the gateway."""


@contextmanager
def at_work(
    count: int, work: Callable[..., T], *arguments: object, niceness: int = _LOWEST_PRIORITY
) -> Iterator[list[Future[T]]]:
    """Run so many strangers; what they return is known afterwards."""
    with ProcessPoolExecutor(
        count, get_context("spawn"), initializer=os.nice, initargs=(niceness,)
    ) as pool:
        for each in [pool.submit(time.monotonic) for _ in range(count)]:
            each.result()  # they are there, and have imported what they need
        yield [pool.submit(work, *arguments) for _ in range(count)]


def addresses(count: int) -> list[str]:
    """Return addresses of this machine that no honest client of the tests has."""
    return [f"127.0.9.{number + 1}" for number in range(count)]


def push_heads(port: int, head: bytes, source: str, heads: int) -> None:
    """Send one head after the other, and wait for each answer."""
    for _ in range(heads):
        with suppress(OSError), _connected(port, source) as connection:
            connection.sendall(head)
            connection.recv(4096)


def push_heads_side_by_side(
    port: int, head: bytes, sources: Sequence[str], seconds: float, count: int = 5
) -> int:
    """Send heads for so long, that many at a time; return how many were sent."""
    deadline = time.monotonic() + seconds

    def push(number: int) -> int:
        sent = 0
        while time.monotonic() < deadline:
            push_heads(port, head, sources[(number + sent) % len(sources)], 1)
            sent += 1
        return sent

    with ThreadPoolExecutor(count) as pool:
        return sum(pool.map(push, range(count)))


def send_waves(port: int, head: bytes, sources: Sequence[str], waves: int) -> int:
    """Send a hundred heads side by side, again and again; return the bytes that were taken."""
    return sum(_send_wave(port, head, sources) for _ in range(waves))


def connect_silently(port: int, rate: float, sources: Sequence[str], seconds: float) -> int:
    """Connect so often a second without a word; return how often."""
    began, connects, held = time.monotonic(), 0, deque[socket.socket]()
    source = cycle(sources)
    while (passed := time.monotonic() - began) < seconds:
        if connects >= passed * rate:
            time.sleep(0.001)
            continue
        connection = socket.socket()
        connection.setblocking(False)
        connection.bind((next(source), 0))
        connection.connect_ex(("127.0.0.1", port))
        held.append(connection)
        connects += 1
        if len(held) > _HELD:
            held.popleft().close()
    for connection in held:
        connection.close()
    return connects


def _send_wave(port: int, head: bytes, sources: Sequence[str]) -> int:
    """Send heads as far as they are taken, and keep the connections for a while."""
    deadline = time.monotonic() + _WAVE_SECONDS
    left: dict[socket.socket, memoryview] = {}
    for source in islice(cycle(sources), _HEADS_A_WAVE):
        left[_connected(port, source)] = memoryview(head)
    while (remaining := deadline - time.monotonic()) > 0:
        unsent = [connection for connection, rest in left.items() if rest]
        for connection in select.select([], unsent, [], remaining)[1]:
            left[connection] = left[connection][_send(connection, left[connection]) :]
        if not unsent:
            time.sleep(remaining)
    for connection in left:
        connection.close()
    return _HEADS_A_WAVE * len(head) - sum(map(len, left.values()))


def _connected(port: int, source: str) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), _PATIENCE_SECONDS, (source, 0))


def _send(connection: socket.socket, data: memoryview) -> int:
    """Return how much was taken; all of it where the gateway has cut the connection off."""
    try:
        return connection.send(data[:131_072], socket.MSG_DONTWAIT)
    except BlockingIOError:
        return 0
    except OSError:
        return len(data)
