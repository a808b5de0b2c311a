"""Clients who flood, and clients who never read, against a gateway in a process of its own.

The figures of the table in docs/security.md are what the full size prints (`-rP` shows it).
"""

import asyncio
import contextlib
import json
from dataclasses import dataclass
from pathlib import Path

import pytest
from speech_gateway.testing import raw_client, request, until
from speech_tools.percentiles import percentiles
from support.flood import FLOODS, Flooded, flooders, speak
from support.lone_gateway import LoneGateway, lone_gateway
from websockets.frames import Frame, Opcode

pytestmark = [pytest.mark.security, pytest.mark.usefixtures("either_loop"), pytest.mark.anyio]

FELT_SECONDS = 0.1
ALONE_SECONDS = 0.01
A_BUSY_MACHINE = 5.0
"""How much longer the third client may wait where the machine has other work."""
MEMORY_BYTES = 10_000_000
CUT_SECONDS = 1.0
TAKEN_BYTES = 1_000_000
"""What the sockets' own buffers hold, twice over."""
ROUNDS = 3
"""The best one counts: on a busy machine a third client waits for others than the gateway too."""
WARM_UP_SECONDS = 1.0

SAID = [Frame(Opcode.BINARY, bytes(640)), Frame(Opcode.TEXT, b'{"event":"done"}')]
NEVER_READ = {
    "after done": (request(), SAID),
    "after a broken frame": (request(), [b"\xf2\x80\x00\x00\x00\x00"]),
    "after too much text": (request(), [Frame(Opcode.TEXT, bytes(5000))]),
    "after too many pings": (request(), [Frame(Opcode.PING, bytes(125))] * 4000),
    "after a refusal": (request("/nowhere"), []),
    "after half a request": (request()[:40], []),
}


@dataclass(frozen=True)
class Figures:
    """What one round has shown; times in seconds, sorted by `percentiles`."""

    alone: list[float]
    felt: list[float]
    grown: int
    flooders: list[Flooded]

    @property
    def felt_at_most(self) -> float:
        """Return what 99 of 100 utterances did not exceed beside the flooders."""
        return percentiles(self.felt, [0.99])[0]

    def row(self, kind: str) -> str:
        """Return it as a row of the document's table, in milliseconds, seconds and megabytes."""
        alone, felt = percentiles(self.alone, [0.5, 0.99]), percentiles(self.felt, [0.5, 0.99, 1])
        milliseconds = [f"{1000 * value:.1f}" for value in (*alone, *felt)]
        cut = max(each.longest for each in self.flooders)
        connections = sum(each.connections for each in self.flooders)
        sent = f"{sum(each.sent for each in self.flooders) / 1e6:.1f}"
        cells = (kind, *milliseconds, f"{self.grown / 1e6:.1f}", f"{cut:.2f}", connections, sent)
        return f"| {' | '.join(map(str, cells))} |"


def flooded(kind: str, seconds: float, logs: Path) -> Figures:
    """Let two flooders at a gateway, and a third client speak: before, and meanwhile."""
    with lone_gateway(logs) as gateway:
        alone = asyncio.run(speak(gateway.url, WARM_UP_SECONDS))
        before = gateway.memory()
        with flooders(kind, gateway.port, seconds) as running:
            felt = asyncio.run(speak(gateway.url, seconds))
            ended = [each.result() for each in running]
        grown = gateway.most_memory() - before
    figures = Figures(alone, felt, grown, ended)
    print(figures.row(kind))  # noqa: T201 - a row of the document
    return figures


def levels(logs: Path) -> set[str]:
    """Return how loud the gateway's log was."""
    lines = (logs / "lone-gateway.log").read_text().splitlines()
    return {json.loads(line)["level"] for line in lines}


def check(kind: str, seconds: float, felt_seconds: float, logs: Path) -> Figures:
    """Flood until a round is good enough for the third client; the rest holds in each round."""
    for _ in range(ROUNDS):
        figures = flooded(kind, seconds, logs)
        assert figures.grown < MEMORY_BYTES
        assert levels(logs) == {"info"}
        for each in figures.flooders:
            assert each.connections > 0
            assert each.longest < CUT_SECONDS or each.sent < TAKEN_BYTES, each
        if figures.felt_at_most < felt_seconds:
            return figures
    raise AssertionError(f"the third client waited {figures.felt_at_most:.3f} s")


@pytest.mark.timeout(60)
@pytest.mark.parametrize("kind", FLOODS)
def test_two_flooders_are_hardly_felt(kind: str, tmp_path: Path) -> None:
    """Who floods is cut or kept from sending, and costs a third client little and no memory."""
    check(kind, 2, FELT_SECONDS * A_BUSY_MACHINE, tmp_path)


@pytest.mark.full
@pytest.mark.timeout(120)
@pytest.mark.parametrize("kind", FLOODS)
def test_two_flooders_are_hardly_felt_for_ten_seconds(kind: str, tmp_path: Path) -> None:
    """In the size of the document: 100 ms at the 99th percentile, where it takes 10 alone."""
    figures = check(kind, 10, FELT_SECONDS, tmp_path)
    assert percentiles(figures.alone, [0.5])[0] < ALONE_SECONDS


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory, either_loop: None):
    """A gateway with all its own limits."""
    with lone_gateway(tmp_path_factory.mktemp("logs"), {"HANDSHAKE_TIMEOUT_SECONDS": "3"}) as it:
        asyncio.run(speak(it.url, 0.1))  # whatever is opened once is open now
        yield it


@pytest.mark.parametrize(("head", "sent"), NEVER_READ.values(), ids=NEVER_READ)
async def test_a_client_that_never_reads_is_gone_within_five_seconds(
    gateway: LoneGateway, head: bytes, sent: list[Frame | bytes]
) -> None:
    """Whatever is owed to it: its slot, its task and its descriptor come back."""
    inside, descriptors = gateway.look_inside(), gateway.descriptors()
    async with raw_client(gateway.port, head, upgrade=bool(sent)) as client:
        client.stop_reading()
        with contextlib.suppress(ConnectionError):
            client.send(*sent)
        async with raw_client(gateway.port):
            pass  # accepted later than the other
        await until(lambda: gateway.descriptors() == descriptors, 5)
    assert gateway.look_inside() == inside
