"""The rounds of a measurement: in each one every server has its turn, so that drift hits all."""

from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from speech_lib.events import BYTES_PER_SECOND

from speech_tools.bench import clients
from speech_tools.bench.result import Sample
from speech_tools.bench.servers import Server

BURST_UTTERANCE_BYTES = 1_310_720
"""20 messages of 64 KiB: 41 s of speech, and 640 divides it."""
BURST_SIZES = (640, 3_200, 65_536)
PACED_SIZES = (640, 3_200)
"""20 and 100 ms of speech."""


@dataclass(frozen=True, slots=True)
class Case:
    """What is sent in one run: `send` returns the times to `accepted`.

    `live` is how many streams speak at the pace of speech, 0 in bursts.
    """

    name: str
    live: int
    audio_bytes: int
    send: Callable[[str], Awaitable[Sequence[float]]]


def bursts(utterances: int) -> Iterator[Case]:
    """Yield a case for each message size, with so many utterances one after another."""
    for size in BURST_SIZES:
        length = BURST_UTTERANCE_BYTES // size * size

        async def send(url: str, size: int = size, length: int = length) -> Sequence[float]:
            return [await clients.burst(url, size, length) for _ in range(utterances)]

        yield Case(f"{size:,} B", 0, length * utterances, send)


def paced(streams: int, size: int, seconds: float) -> Case:
    """Return the case of so many live streams at once, in messages of `size` bytes."""
    count = max(1, round(seconds * BYTES_PER_SECOND / size))
    first = sum(clients.part_of(count, number, streams) for number in range(streams))

    async def send(url: str) -> Sequence[float]:
        return await clients.live(url, streams, size, count)

    return Case(f"{streams:,} x {size:,} B", streams, (first + streams * count) * size, send)


async def measure(server: Server, case: Case) -> Sample:
    """Run one case once, and read the server's processor time around it.

    Raises:
        BenchError: The server refused something, or was not reached.
    """
    lag = await server.lag()
    cpu, loop = server.cpu_seconds(), server.loop_seconds()
    waits = await case.send(server.url)
    cpu, loop = server.cpu_seconds() - cpu, server.loop_seconds() - loop
    since = after.since(lag) if lag and (after := await server.lag()) else None
    p99 = since.quantile(0.99) if since else None
    return Sample(cpu, loop, case.audio_bytes, tuple(waits), p99)


async def warm_up(servers: Sequence[Server]) -> None:
    """Speak to every server once, unmeasured: the first utterance pays for what is made once.

    Raises:
        BenchError: A server refused it, or was not reached.
    """
    for server in servers:
        await clients.burst(server.url, BURST_SIZES[0], BURST_UTTERANCE_BYTES)


async def measure_all(
    servers: Sequence[Server], case: Case, rounds: Iterable[int]
) -> list[dict[str, Sample]]:
    """Return every round; the order of the servers turns around from one round to the next."""
    found = []
    for number in rounds:
        turns = servers if number % 2 == 0 else servers[::-1]
        samples = {}
        for server in turns:
            samples[server.name] = await measure(server, case)
        found.append({server.name: samples[server.name] for server in servers})
    return found
