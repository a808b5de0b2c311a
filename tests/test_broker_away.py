"""A live gateway whose broker is away, refusing connections or silent, and comes back.

Everybody who waits is answered in time, nobody else notices, memory stays bounded, and the return
needs nobody's help. The broker is the embedded one: it refuses when told so, and is silent while
its process is stopped (the kernel still accepts connections, as for a paused container).
"""

import asyncio
import json
import re
import signal
import statistics
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from speech_gateway.testing import LIMITS, raw_client, request
from speech_lib.testing.embedded import EmbeddedPipeline
from speech_lib.testing.registry_server import RegistryServer
from speech_tools import stack
from support.operations import readiness
from websockets.asyncio.client import ClientConnection, connect

pytestmark = [pytest.mark.pipeline, pytest.mark.timeout(120)]

TOPIC = "speech.audio.ingress"
LARGEST = bytes(LIMITS.max_audio_bytes)
DONE = '{"event":"done"}'
CLIENTS = 10
MEBIBYTE = 1024 * 1024
MOST_MEMORY = 150_000_000
AWAY_IS_SEEN_SECONDS = 10.0
BACK_IS_SEEN_SECONDS = 5.0
HANDSHAKE_SECONDS = 0.1
A_BUSY_MACHINE = 10.0
"""How much longer the slowest handshake may take where the machine has other work."""


@dataclass(frozen=True)
class Gateway:
    """A gateway and its operations port."""

    process: stack.Process
    port: int
    ops_port: int

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/ws/audio"

    @property
    def peak_memory(self) -> int:
        """The most bytes that the process has had resident (VmHWM of proc(5))."""
        status = Path(f"/proc/{self.process._process.pid}/status").read_text()
        kibibytes = re.search(r"VmHWM:\s+(\d+) kB", status)
        assert kibibytes
        return int(kibibytes[1]) * 1024

    async def readiness(self) -> tuple[int, dict]:
        """Ask `/readyz`."""
        return await asyncio.to_thread(readiness, self.ops_port)

    async def until_ready_is(self, status: int, seconds: float) -> tuple[float, dict]:
        """Wait for an answer of `/readyz`; return how long that took, and its body."""
        began = time.monotonic()
        async with asyncio.timeout(seconds):
            while (answer := await self.readiness())[0] != status:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        return time.monotonic() - began, answer[1]


@contextmanager
def gateway(broker: EmbeddedPipeline, logs: Path, **settings: str) -> Iterator[Gateway]:
    env = {
        "KAFKA_BOOTSTRAP_SERVERS": broker.bootstrap_servers,
        "SCHEMA_REGISTRY_URL": broker.registry_url,
        **stack.MANY_FROM_ONE_ADDRESS,
        "MAX_CONNECTIONS": "40",
        "MAX_CONNECTIONS_PER_ADDRESS": "40",
        "PORT": "0",
        "OPS_PORT": "0",
        **settings,
    }
    with stack.Process("gateway", "speech_gateway", env, logs) as process:
        listening = process.wait_for(event="listening")
        process.wait_for(event="ready")
        yield Gateway(process, listening["port"], listening["ops_port"])


@pytest.fixture
def broker() -> Iterator[EmbeddedPipeline]:
    with EmbeddedPipeline([TOPIC]) as running:
        try:
            yield running
        finally:
            running._process.send_signal(signal.SIGCONT)  # what is stopped could not be ended


def refuse(broker: EmbeddedPipeline) -> Callable[[], None]:
    """Break the broker's connections and accept none; return what ends it."""
    broker.set_broker_down()
    return broker.set_broker_up


def silence(broker: EmbeddedPipeline) -> Callable[[], None]:
    """Have the broker (and the registry) answer nothing; return what ends it."""
    broker._process.send_signal(signal.SIGSTOP)
    return lambda: broker._process.send_signal(signal.SIGCONT)


@asynccontextmanager
async def speaker(gateway: Gateway, pcm: bytes) -> AsyncIterator[ClientConnection]:
    """A client that has sent its audio, and has not said `done` yet."""
    async with connect(gateway.url, compression=None, proxy=None) as connection:
        assert json.loads(await connection.recv())["status"] == "connected"
        for start in range(0, len(pcm), LIMITS.max_chunk_bytes):
            await connection.send(pcm[start : start + LIMITS.max_chunk_bytes])
        yield connection


async def end(connection: ClientConnection) -> tuple[dict, float]:
    """Say `done`; return the final message and how long it took."""
    began = time.monotonic()
    await connection.send(DONE)
    final = json.loads(await connection.recv())
    return final, time.monotonic() - began


@dataclass
class Handshakes:
    """What new clients are told, and how long each waits, from the first SYN to the answer."""

    gateway: Gateway
    seconds: list[float] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)

    async def go_on(self) -> None:
        """Try one after the other, until cancelled."""
        while True:
            began = time.monotonic()
            async with raw_client(self.gateway.port, request(), upgrade=False) as client:
                head = await client.read_head()
            self.seconds.append(time.monotonic() - began)
            self.statuses.append(int(head.split()[1]))
            await asyncio.sleep(0.02)


@dataclass(frozen=True)
class Absence:
    """What happened while the broker was away, and after.

    Attributes:
        finals: What the clients that waited were told, and after how long.
        handshakes: Those of others meanwhile.
        seen_after: When `/readyz` told of it.
        reasons: What it told.
        well_after: From the broker's return to an accepted utterance.
    """

    finals: list[tuple[dict, float]]
    handshakes: Handshakes
    seen_after: float
    reasons: dict
    well_after: float


async def go_through(
    gateway: Gateway, injure: Callable[[], Callable[[], None]], seconds: float
) -> Absence:
    """Have the broker away for so long, with ten of the largest utterances waiting for it."""
    async with AsyncExitStack() as connections:
        speakers = [
            await connections.enter_async_context(speaker(gateway, LARGEST)) for _ in range(CLIENTS)
        ]
        heal, left = injure(), time.monotonic()
        try:
            handshakes = Handshakes(gateway)
            trying = asyncio.create_task(handshakes.go_on())
            seeing = asyncio.create_task(gateway.until_ready_is(503, AWAY_IS_SEEN_SECONDS))
            finals = await asyncio.gather(*map(end, speakers))
            seen_after, body = await seeing
            await asyncio.sleep(left + seconds - time.monotonic())
            trying.cancel()
            await asyncio.gather(trying, return_exceptions=True)
        finally:
            heal()
    back = time.monotonic()
    await gateway.until_ready_is(200, BACK_IS_SEEN_SECONDS)
    async with speaker(gateway, LARGEST) as connection:
        final, _ = await end(connection)
    assert final["status"] == "accepted"
    return Absence(finals, handshakes, seen_after, body["reasons"], time.monotonic() - back)


SIZES = pytest.mark.parametrize(
    ("delivery_seconds", "away_seconds", "slowest_handshake"),
    [
        pytest.param(3.0, 18.0, HANDSHAKE_SECONDS * A_BUSY_MACHINE, id="18 s"),
        pytest.param(10.0, 30.0, HANDSHAKE_SECONDS, id="30 s", marks=pytest.mark.full),
    ],
)


@SIZES
@pytest.mark.parametrize(
    ("injure", "stored"), [(refuse, {"no"}), (silence, {"no", "unknown"})], ids=["gone", "silent"]
)
def test_a_broker_that_is_away_harms_nobody_else(
    broker, tmp_path, injure, stored, delivery_seconds, away_seconds, slowest_handshake
):
    """All are answered in time, new clients at once, within 150 MB, and it heals in 5 s."""
    with gateway(broker, tmp_path, DELIVERY_TIMEOUT_SECONDS=str(delivery_seconds)) as running:
        absence = asyncio.run(go_through(running, lambda: injure(broker), away_seconds))
        peak = running.peak_memory
    slowest = max(absence.handshakes.seconds)
    median = statistics.median(absence.handshakes.seconds)
    print(  # noqa: T201  # pytest shows it with -rP; the documents hold what it says
        f"answered after {max(after for _, after in absence.finals):.1f} s at most, "
        f"{len(absence.handshakes.seconds)} handshakes: median {median * 1000:.1f} ms, "
        f"slowest {slowest * 1000:.1f} ms; seen after {absence.seen_after:.1f} s, "
        f"well after {absence.well_after:.1f} s, {peak / 1e6:.0f} MB at most"
    )
    assert {final["code"] for final, _ in absence.finals} == {"broker_unavailable"}
    assert {final["stored"] for final, _ in absence.finals} <= stored
    assert len(absence.finals) == CLIENTS
    assert max(after for _, after in absence.finals) < delivery_seconds + 2
    assert set(absence.handshakes.statuses) == {101, 503}
    assert median < HANDSHAKE_SECONDS
    assert slowest < slowest_handshake
    assert absence.reasons.keys() == {"broker"}
    assert re.fullmatch("_[A-Z_]+", absence.reasons["broker"])
    assert absence.well_after < BACK_IS_SEEN_SECONDS
    assert peak < MOST_MEMORY


def test_the_queue_has_a_place_for_every_client(broker, tmp_path):
    """With more clients than 32 MiB hold, nobody's largest utterance is refused for want of one."""
    many = 32 * MEBIBYTE // len(LARGEST) + 4

    async def scenario(running: Gateway) -> list[tuple[dict, float]]:
        async with AsyncExitStack() as connections:
            speakers = [
                await connections.enter_async_context(speaker(running, LARGEST))
                for _ in range(many)
            ]
            broker.set_broker_down()
            return await asyncio.gather(*map(end, speakers))

    with gateway(broker, tmp_path, DELIVERY_TIMEOUT_SECONDS="8") as running:
        finals = asyncio.run(scenario(running))
        log = (tmp_path / "gateway.log").read_text()
    told = {(final["code"], final["stored"], final["retryable"]) for final, _ in finals}
    assert told == {("broker_unavailable", "no", True)}
    assert log.count("_QUEUE_FULL") == 0


def test_a_registry_that_goes_disturbs_nobody(broker, tmp_path):
    """Utterances are accepted, and `/readyz` says 200, while it is away and when it is empty."""

    async def look(running: Gateway) -> tuple[str, int]:
        async with speaker(running, LARGEST[:32_000]) as connection:
            final, _ = await end(connection)
        return final["status"], (await running.readiness())[0]

    with ExitStack() as gateways:
        with RegistryServer() as leaving:
            settings = {"SCHEMA_REGISTRY_URL": leaving.url}
            running = gateways.enter_context(gateway(broker, tmp_path, **settings))
        assert asyncio.run(look(running)) == ("accepted", 200)
        with RegistryServer(leaving.port) as empty:
            assert asyncio.run(look(running)) == ("accepted", 200)
            assert empty.store.subjects() == []
