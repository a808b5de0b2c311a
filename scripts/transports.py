"""Measure what one utterance costs over WebSocket, HTTP and gRPC, before anything is done with it.

    uv run --with grpcio scripts/transports.py [--rounds 5] [--utterances 20] [--json FILE]

Bare servers, each in a process of its own, take turns with the same recorded speech. The figures
are in `agent-output/analysis/005-ingress-gateway-analysis.md`.
"""

import asyncio
import importlib.util
import json
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Annotated

import typer
from pipeline_tools import audio
from pipeline_tools.transports import NEEDS, TRANSPORTS
from rich.console import Console
from rich.progress import track
from rich.table import Table

SAMPLE = Path(__file__).parent.parent / "samples" / "go-forward-ten-meters.raw"
CHUNKS = (640, 3200, 65_536)
"""Bytes: 20 ms, 100 ms, and as much as a message holds."""
UTTERANCE_BYTES = 960_000
"""30 s of speech."""
WARM_UP = 2
MIN_WIDTH = 100
MEGA = 1_000_000


@dataclass(frozen=True, slots=True)
class Cost:
    """What one transport took with one size of chunk.

    Attributes:
        transport: Its name.
        chunk_bytes: How the utterance was cut.
        server_ms: Processor time of the server, in ms for a MB: the median of the rounds.
        utterance_ms: From connecting to the answer, as fast as it goes: the median.
        first: `server_ms` in relation to the first transport's, round by round: the median.
    """

    transport: str
    chunk_bytes: int
    server_ms: float
    utterance_ms: float
    first: float


class Peer:
    """A server in another process, and its processor time."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self.port: int = pipe.recv()

    def processor_seconds(self) -> float:
        """Return what the server has used since its start."""
        self._pipe.send(None)
        used: float = self._pipe.recv()
        return used


@contextmanager
def running(name: str) -> Iterator[Peer]:
    """Run a transport's server."""
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(name, theirs), daemon=True)
    process.start()
    theirs.close()
    try:
        yield Peer(ours)
    finally:
        ours.close()  # which ends it
        process.join(timeout=5)
        process.kill()


def _serve(name: str, pipe: Connection) -> None:
    async def serve() -> None:
        loop, closed = asyncio.get_running_loop(), asyncio.Event()

        def answer() -> None:
            try:
                pipe.recv()
                pipe.send(time.process_time())
            except (EOFError, OSError):
                closed.set()

        async with TRANSPORTS[name].server() as port:
            pipe.send(port)
            loop.add_reader(pipe.fileno(), answer)
            await closed.wait()
            loop.remove_reader(pipe.fileno())

    asyncio.run(serve())


def speech() -> bytes:
    """Return an utterance of recorded speech, said again and again."""
    once = audio.load(SAMPLE).pcm
    return (once * (1 + UTTERANCE_BYTES // len(once)))[:UTTERANCE_BYTES]


def cut(pcm: bytes, size: int) -> list[bytes]:
    """Return the utterance in chunks."""
    return [pcm[start : start + size] for start in range(0, len(pcm), size)]


def one_round(name: str, peer: Peer, chunks: list[bytes], utterances: int) -> tuple[float, float]:
    """Send some utterances; return ms of the server's processor for a MB, and ms an utterance."""

    async def send(count: int) -> None:
        for _ in range(count):
            counted = await TRANSPORTS[name].client(peer.port, chunks)
            assert counted == UTTERANCE_BYTES, f"{name}: {counted} bytes came"  # noqa: S101

    asyncio.run(send(WARM_UP))
    used, began = peer.processor_seconds(), time.perf_counter()
    asyncio.run(send(utterances))
    took, used = time.perf_counter() - began, peer.processor_seconds() - used
    return used * 1000 * MEGA / (utterances * UTTERANCE_BYTES), took * 1000 / utterances


def measure(names: list[str], size: int, rounds: int, utterances: int) -> list[Cost]:
    """Let the transports take turns, so that a busy machine is busy for all of them."""
    chunks = cut(speech(), size)
    results: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    for _ in track(range(rounds), f"{size} bytes", console=Console(stderr=True)):
        for name in names:
            with running(name) as peer:
                results[name].append(one_round(name, peer, chunks, utterances))
    base = [used for used, _ in results[names[0]]]
    return [
        Cost(
            name,
            size,
            statistics.median(used for used, _ in each),
            statistics.median(took for _, took in each),
            statistics.median(used / first for (used, _), first in zip(each, base, strict=True)),
        )
        for name, each in results.items()
    ]


def available() -> list[str]:
    """Return the transports that can be measured here; say what the others need."""
    missing = {name: it for name, it in NEEDS.items() if importlib.util.find_spec(it) is None}
    for name, module in missing.items():
        print(f"transports: {name} is left out, it needs {module}", file=sys.stderr)
    return [name for name in TRANSPORTS if name not in missing]


def show(costs: list[Cost]) -> None:
    """Print the table."""
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0))
    table.add_column("transport", no_wrap=True)
    for title in ("chunk", "server CPU a MB", "in relation", "30 s of speech take"):
        table.add_column(title, justify="right")
    for each in costs:
        table.add_row(
            each.transport,
            f"{each.chunk_bytes} B",
            f"{each.server_ms:.1f} ms",
            f"{each.first:.2f}",
            f"{each.utterance_ms:.1f} ms",
        )
    console = Console(highlight=False)
    console.width = max(console.width, MIN_WIDTH)
    console.print(table)


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(
    rounds: Annotated[int, typer.Option(min=1, max=100, help="turns of each transport")] = 5,
    utterances: Annotated[int, typer.Option(min=1, max=1000, help="of 30 s, in a turn")] = 20,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="write the figures to this file too")
    ] = None,
) -> None:
    """Measure what an utterance costs a bare server over WebSocket, HTTP and gRPC."""
    names = available()
    costs = [each for size in CHUNKS for each in measure(names, size, rounds, utterances)]
    show(costs)
    if json_file:
        json_file.write_text(json.dumps([asdict(each) for each in costs], indent=2) + "\n")


if __name__ == "__main__":
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(130)
