"""Compare what it costs to be watched: rounds of the same load on gateways that differ in that.

Used by `overhead.py`. The gateways run side by side and take turns, so that whatever else the
machine does meets all of them alike; a round's figures are compared with each other only.
"""

import asyncio
import statistics
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import aiohttp
from speech_gateway.testing import RawClient, raw_client
from speech_lib.testing.embedded import EmbeddedPipeline
from websockets.frames import Frame, Opcode

from pipeline_tools.otlp_receiver import collector
from pipeline_tools.overhead.gateway import MeasuredGateway, Variant, measured_gateway
from pipeline_tools.stack import Addresses

MEGABYTE = 1_000_000
_BYTES_PER_SECOND = 32_000
_IDLE_SECONDS = 5.0
_LOOKS = 20
_PARTITIONS = 6
_SETTLE_SECONDS = 1.2
"""The spans of a round are exported within a second, and are a part of what it costs."""
_DONE = Frame(Opcode.TEXT, b'{"event":"done"}')


@dataclass(frozen=True, slots=True)
class Load:
    """What every round streams.

    Attributes:
        message_bytes: The size of each WebSocket message.
        seconds: The length of each utterance.
        megabytes: How much a round streams in all, in millions of bytes, rounded to utterances.
        clients: How many speak at once.
    """

    message_bytes: int
    seconds: float
    megabytes: float
    clients: int

    @property
    def utterance_bytes(self) -> int:
        """The length of an utterance, in whole messages."""
        messages = round(self.seconds * _BYTES_PER_SECOND / self.message_bytes)
        return max(1, messages) * self.message_bytes

    @property
    def utterances(self) -> int:
        """How many utterances each client speaks in a round."""
        return max(1, round(self.megabytes * MEGABYTE / self.utterance_bytes / self.clients))

    @property
    def streamed_megabytes(self) -> float:
        """How much a round really streams."""
        return self.utterances * self.clients * self.utterance_bytes / MEGABYTE

    def frames(self) -> bytes:
        """Return an utterance as it goes over the wire."""
        message = Frame(Opcode.BINARY, bytes(self.message_bytes)).serialize(mask=True)
        count = self.utterance_bytes // self.message_bytes
        return message * count + _DONE.serialize(mask=True)


@dataclass(frozen=True, slots=True)
class Resting:
    """What a gateway takes while nobody speaks.

    Attributes:
        idle_ms_per_second: Processor time while nothing is asked of it.
        look_ms: Processor time of one reading of its metrics.
    """

    idle_ms_per_second: float
    look_ms: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """One variant against the bare gateway.

    Attributes:
        variant: Which.
        resting: What it takes while nobody speaks; no part of the figures that follow.
        ms_per_megabyte: Processor time for a million bytes of audio, the median of all rounds.
        change: By how much that is more than bare, as a part of it: the median of all rounds.
        least: The least change of a round.
        most: The most.
        error: The standard error of the mean change: what another run may differ by.
    """

    variant: Variant
    resting: Resting
    ms_per_megabyte: float
    change: float
    least: float
    most: float
    error: float


def compare(
    rounds: Sequence[Mapping[Variant, float]],
    megabytes: float,
    resting: Mapping[Variant, Resting],
) -> tuple[Comparison, ...]:
    """Compare each variant with `BARE`.

    Args:
        rounds: The processor seconds that each took in each round.
        megabytes: What each got in a round.
        resting: What each takes while nobody speaks.
    """
    return tuple(_compared(variant, rounds, megabytes, resting[variant]) for variant in rounds[0])


def _compared(
    variant: Variant,
    rounds: Sequence[Mapping[Variant, float]],
    megabytes: float,
    resting: Resting,
) -> Comparison:
    changes = [each[variant] / each[Variant.BARE] - 1 for each in rounds]
    spread = statistics.stdev(changes) if len(changes) > 1 else 0.0
    return Comparison(
        variant,
        resting,
        statistics.median(each[variant] for each in rounds) * 1000 / megabytes,
        statistics.median(changes),
        min(changes),
        max(changes),
        spread / len(changes) ** 0.5,
    )


def measure(
    variants: Sequence[Variant], loads: Sequence[Load], rounds: int, folder: Path
) -> dict[Load, tuple[Comparison, ...]]:
    """Run all rounds of all loads.

    Each round has gateways of its own: where the parts of a process happen to lie in memory makes
    a difference of some percent between two that are the same.

    Args:
        variants: Which gateways to compare; `BARE` among them.
        loads: What they are put under, one after the other.
        rounds: How many of each.
        folder: For the gateways' logs.
    """
    used: dict[Load, list[dict[Variant, float]]] = {load: [] for load in loads}
    with collector() as collecting, EmbeddedPipeline() as kafka:
        kafka.create_topic("speech.audio.ingress", _PARTITIONS)
        resting: dict[Variant, Resting] = {}
        for _ in range(rounds):
            with _gateways(variants, kafka, folder, collecting.endpoint) as gateways:
                asyncio.run(_stream(gateways, replace(loads[0], megabytes=0)))  # warms them up
                resting = resting or _rest(gateways)
                for load in loads:
                    used[load].append(asyncio.run(_round(gateways, load, resting)))
    return {load: compare(used[load], load.streamed_megabytes, resting) for load in loads}


@contextmanager
def _gateways(
    variants: Sequence[Variant], kafka: Addresses, folder: Path, endpoint: str
) -> Iterator[dict[Variant, MeasuredGateway]]:
    with ExitStack() as stack:
        yield {
            variant: stack.enter_context(
                measured_gateway(variant, kafka, folder / f"{variant}.log", endpoint)
            )
            for variant in variants
        }


async def _round(
    gateways: Mapping[Variant, MeasuredGateway], load: Load, resting: Mapping[Variant, Resting]
) -> dict[Variant, float]:
    """Stream to each; return the processor seconds that it took them.

    What they do in any case while they wait for their turns is left out.
    """
    began, before = time.monotonic(), _cpu_seconds(gateways)
    streaming = await _stream(gateways, load)
    await asyncio.sleep(_SETTLE_SECONDS)
    after, took = _cpu_seconds(gateways), time.monotonic() - began
    return {
        each: after[each]
        - before[each]
        - resting[each].idle_ms_per_second / 1000 * (took - streaming[each])
        for each in gateways
    }


async def _stream(gateways: Mapping[Variant, MeasuredGateway], load: Load) -> dict[Variant, float]:
    """Speak all utterances; return the seconds that it was each one's turn.

    They take turns after each utterance, so that a moment in which the machine is slow, or another
    process takes from the caches, is a moment of all.
    """
    frames, streaming = load.frames(), dict.fromkeys(gateways, 0.0)
    order = deque(gateways)
    for _ in range(load.utterances):
        for variant in tuple(order):
            turn, port = time.monotonic(), gateways[variant].ports.clients
            await asyncio.gather(*(_speak(port, frames) for _ in range(load.clients)))
            streaming[variant] += time.monotonic() - turn
        order.rotate(-1)  # never the same one twice in a row: it would find its caches warm
    return streaming


def _rest(gateways: Mapping[Variant, MeasuredGateway]) -> dict[Variant, Resting]:
    """Measure what each takes while nobody speaks."""
    before = _cpu_seconds(gateways)
    time.sleep(_IDLE_SECONDS)
    idle = _cpu_seconds(gateways)
    for gateway in gateways.values():
        asyncio.run(_look(gateway.ports.operations))
    looked = _cpu_seconds(gateways)
    return {
        each: Resting(
            (idle[each] - before[each]) * 1000 / _IDLE_SECONDS,
            (looked[each] - idle[each]) * 1000 / _LOOKS,
        )
        for each in gateways
    }


def _cpu_seconds(gateways: Mapping[Variant, MeasuredGateway]) -> dict[Variant, float]:
    return {variant: gateway.cpu_seconds() for variant, gateway in gateways.items()}


async def _speak(port: int, frames: bytes) -> None:
    async with raw_client(port) as client:
        client.send(frames)
        await _until_closed(client)


async def _until_closed(client: RawClient) -> None:
    frame = await client.read_frame()
    while frame.opcode is not Opcode.CLOSE:
        if b'"error"' in frame.data:
            raise RuntimeError(bytes(frame.data).decode())
        frame = await client.read_frame()
    client.send(Frame(Opcode.CLOSE, frame.data))


async def _look(port: int) -> None:
    """Read the metrics as Prometheus does, some times one after the other."""
    async with aiohttp.ClientSession() as session:
        for _ in range(_LOOKS):
            async with session.get(f"http://127.0.0.1:{port}/metrics") as answer:
                await answer.read()
