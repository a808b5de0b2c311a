"""Storms of clients, good, bad and silent, against a gateway in a process of its own."""

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from speech_gateway.testing import RawClient, raw_client, request, until
from speech_tools.percentiles import percentiles
from support import strangers
from support.flood import speak
from support.lone_gateway import LoneGateway, lone_gateway
from websockets.frames import Frame, Opcode

pytestmark = [pytest.mark.security, pytest.mark.usefixtures("either_loop"), pytest.mark.anyio]

LIMIT = 10
PER_SECOND = 400
REFUSED_SECONDS = 0.1
SLOTS_BACK_SECONDS = 1.0
ROUND_TRIPS = {"127.0.8.1": 0.0, "127.0.8.2": 0.05, "127.0.8.3": 0.1, "127.0.8.4": 0.2}
"""Of honest clients, by their addresses, in seconds."""
ADMITTED = 0.95
PAUSE_SECONDS = 0.06
"""So that none of them opens more than twenty sessions in a second."""
A_BUSY_MACHINE = 5.0
"""How much longer things may take where the machine has other work."""

UTTERANCE = [Frame(Opcode.BINARY, bytes(640)), Frame(Opcode.TEXT, b'{"event":"done"}')]
HALF = request()[:40]
BAD_KEY = request(without=frozenset({"Sec-WebSocket-Key"}), headers=[("Sec-WebSocket-Key", "x")])
OLD = request(version="HTTP/1.0")


@dataclass
class Storm:
    """Clients who come one after the other at a steady pace.

    Attributes:
        port: of the gateway.
        most: how many were surely live at once: admitted, and with nothing done to end it.
        refused: how long each refusal took, from the connect to its status line.
    """

    port: int
    most: int = 0
    refused: list[float] = field(default_factory=list)
    _live: int = 0
    _over: asyncio.Event = field(default_factory=asyncio.Event)

    async def blow(self, clients: int) -> Counter[str]:
        """Send so many clients; return the statuses that they were answered with."""
        kinds = [
            (request(), self._speaks),
            (request(), self._stays),
            (request(), self._leaves),
            (request(), self._resets),
            (BAD_KEY, self._is_answered),
            (OLD, self._is_answered),
            (b"", self._is_silent),
            (HALF, self._is_silent),
        ]
        began = time.monotonic()
        async with asyncio.TaskGroup() as group:
            tasks = []
            for number in range(clients):
                await asyncio.sleep(began + number / PER_SECOND - time.monotonic())
                tasks.append(group.create_task(self._client(*kinds[number % len(kinds)])))
            self._over.set()
        return Counter(task.result() for task in tasks)

    async def _client(self, head: bytes, behave: Callable[[RawClient], Awaitable[str]]) -> str:
        began = time.monotonic()
        async with raw_client(self.port, head, upgrade=False) as client:
            status = await behave(client)
            if status not in {"101", ""}:
                self.refused.append(time.monotonic() - began)
            return status

    async def _speaks(self, client: RawClient) -> str:
        status = await self._is_answered(client)
        if status == "101":
            with self._is_live():
                client.send(*UTTERANCE)
                while (frame := await client.read_frame()).opcode is not Opcode.CLOSE:
                    pass
            client.send(frame)
        return status

    async def _stays(self, client: RawClient) -> str:
        status = await self._is_answered(client)
        if status == "101":
            over = asyncio.create_task(self._over.wait())
            with self._is_live():
                closed = asyncio.create_task(self._until_closed(client))
                await asyncio.wait({over, closed}, return_when=asyncio.FIRST_COMPLETED)
            over.cancel()
            closed.cancel()
        return status

    async def _until_closed(self, client: RawClient) -> None:
        while (await client.read_frame()).opcode is not Opcode.CLOSE:
            pass

    async def _is_answered(self, client: RawClient) -> str:
        return (await client.read_head())[9:12]

    async def _leaves(self, _client: RawClient) -> str:
        return ""

    async def _resets(self, client: RawClient) -> str:
        client.reset()
        return ""

    async def _is_silent(self, _client: RawClient) -> str:
        await self._over.wait()
        return ""

    @contextlib.contextmanager
    def _is_live(self) -> Iterator[None]:
        self._live += 1
        self.most = max(self.most, self._live)
        try:
            yield
        finally:
            self._live -= 1


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[LoneGateway]:
    """A gateway that soon gives up those who say nothing, so that others get their slots."""
    settings = {
        "IDLE_TIMEOUT_SECONDS": "1",
        "MAX_CONNECTIONS_PER_ADDRESS": "1000",
        "MAX_SESSIONS_PER_SECOND_PER_ADDRESS": "1000",
    }
    with lone_gateway(tmp_path, settings) as running:
        await speak(running.url, 0.1)  # whatever is opened once is open now
        yield running


async def weather(gateway: LoneGateway, clients: int, longer: float = 1.0) -> Storm:
    """Let a storm pass over the gateway, and look at what it has left.

    Times may be `longer` by that factor.
    """
    inside, descriptors = gateway.look_inside(), gateway.descriptors()
    storm = Storm(gateway.port)
    statuses = await storm.blow(clients)
    await until(lambda: gateway.look_inside().live == 0, SLOTS_BACK_SECONDS * longer)

    assert storm.most <= LIMIT
    each, admitted, full = clients // 8, statuses["101"], statuses["503"]
    ends = {"101": admitted, "503": full, "400": each, "505": each, "": 4 * each}
    assert (statuses, admitted + full) == (ends, 2 * each)
    median, nearly_all = percentiles(storm.refused, [0.5, 0.99])
    print(f"{admitted=} {full=} {median=:.4f} {nearly_all=:.4f}")  # noqa: T201 - for the document
    assert median < REFUSED_SECONDS * longer
    await until(lambda: gateway.descriptors() == descriptors)
    assert gateway.look_inside() == inside
    return storm


async def all_of(gateway: LoneGateway) -> list[str]:
    """Return how the gateway answers one more than it has slots, all at once."""
    async with contextlib.AsyncExitStack() as opened:
        clients = [raw_client(gateway.port, upgrade=False) for _ in range(LIMIT + 1)]
        heads = [await (await opened.enter_async_context(each)).read_head() for each in clients]
        return [head[9:12] for head in heads]


async def test_a_storm_never_passes_the_limit_and_leaks_nothing(gateway: LoneGateway) -> None:
    """Of 400 clients in a second never more than ten are live; then all is as it was."""
    await weather(gateway, 400, A_BUSY_MACHINE)
    assert await all_of(gateway) == ["101"] * LIMIT + ["503"]


@pytest.mark.full
async def test_a_storm_of_two_thousand_in_five_seconds(gateway: LoneGateway) -> None:
    """In the size and the times of the document; the limit is reached, too."""
    storm = await weather(gateway, 2000)
    assert storm.most == LIMIT
    assert await all_of(gateway) == ["101"] * LIMIT + ["503"]


async def honest(port: int, source: str, seconds: float) -> Counter[str]:
    """Connect, and send a request one round trip later, again and again; count the answers."""
    answers: Counter[str] = Counter()
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            async with raw_client(port, b"", upgrade=False, source=source) as client:
                await asyncio.sleep(ROUND_TRIPS[source])
                client.send(request())
                answers[(await client.read_head())[9:12]] += 1
        except (OSError, asyncio.IncompleteReadError):
            answers["closed"] += 1
        await asyncio.sleep(PAUSE_SECONDS)
    return answers


async def beside_silent_ones(
    gateway: LoneGateway, rate: int, addresses: int, seconds: float
) -> None:
    """Let strangers connect without a word; nearly every honest client is admitted all the same."""
    sources = strangers.addresses(addresses)
    arguments = (gateway.port, rate, sources, seconds + 1)
    with strangers.at_work(1, strangers.connect_silently, *arguments, niceness=0) as attack:
        await asyncio.sleep(0.5)
        counts = await asyncio.gather(
            *(honest(gateway.port, source, seconds) for source in ROUND_TRIPS)
        )
    connects = attack[0].result() / (seconds + 1)
    told = {
        f"{1000 * ROUND_TRIPS[s]:.0f} ms": dict(c) for s, c in zip(ROUND_TRIPS, counts, strict=True)
    }
    print(f"{connects:.0f} connects a second from {addresses}: {told}")  # noqa: T201
    assert connects > rate / A_BUSY_MACHINE
    for count in counts:
        assert count["101"] >= ADMITTED * count.total() > 0


@pytest.mark.parametrize("addresses", [1, 8])
async def test_the_slowest_handshake_outlives_any_number_of_silent_ones(
    gateway: LoneGateway, addresses: int
) -> None:
    """However long its round trip: two hundred connect meanwhile, and the gateway cuts theirs."""
    sources = strangers.addresses(addresses)
    async with contextlib.AsyncExitStack() as opened:

        async def connects(source: str) -> RawClient:
            return await opened.enter_async_context(
                raw_client(gateway.port, b"", upgrade=False, source=source)
            )

        slow = await connects("127.0.8.1")
        silent = [await connects(sources[number % addresses]) for number in range(200)]
        for each in silent[:100]:
            assert await each.read_rest() == b""
        slow.send(request())
        assert (await slow.read_head())[9:12] == "101"


@pytest.mark.parametrize(("rate", "addresses"), [(1000, 1), (2000, 8)])
async def test_silent_connects_keep_nobody_out(
    gateway: LoneGateway, rate: int, addresses: int
) -> None:
    """Whoever holds most unfinished handshakes loses the oldest: not who has a long round trip."""
    await beside_silent_ones(gateway, rate, addresses, 3)


@pytest.mark.full
@pytest.mark.parametrize("addresses", [1, 8])
@pytest.mark.parametrize("rate", [1000, 2000])
async def test_silent_connects_for_ten_seconds_keep_nobody_out(
    gateway: LoneGateway, rate: int, addresses: int
) -> None:
    """In the size of the document."""
    await beside_silent_ones(gateway, rate, addresses, 10)
