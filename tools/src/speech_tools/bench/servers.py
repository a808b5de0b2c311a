"""The servers that are compared: each runs in a process of its own, all at the same time."""

import re
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import aiohttp

from speech_tools import stack
from speech_tools.bench import bare
from speech_tools.bench.result import BASE
from speech_tools.operations import fetch
from speech_tools.operations.metrics_page import Histogram, Page
from speech_tools.topics import Topics

UVLOOP = "bare uvloop"
GATEWAY = "gateway"
LAG = "speech_gateway_loop_lag_seconds"
OWN_TOPICS = Topics("speech.bench.audio", "speech.bench.text", "speech.bench.dlq")
RAW_TOPIC, SPEECH_TOPIC = "speech.bench.raw", "speech.bench.speech"
"""Topics of the bench, so that no other recogniser has to listen to it."""
TOPIC_VARIABLES = {
    "TOPIC_AUDIO_INGRESS": OWN_TOPICS.audio,
    "TOPIC_ASR_TEXT": OWN_TOPICS.text,
    "TOPIC_DEAD_LETTER": OWN_TOPICS.dead_letter,
}
NEEDS_A_GATEWAY = (
    "the gateway is not installed here: measuring it needs a checkout of the repository"
)
_BARE = {BASE: "asyncio", UVLOOP: "uvloop"}
_SCHED = 2  # CPUCLOCK_SCHED of the kernel
_METRICS_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Server:
    """A server that listens. `ops_url` is where its metrics are, if it has any."""

    name: str
    url: str
    pid: int
    ops_url: str | None = None

    def cpu_seconds(self) -> float:
        """Return the processor time of all its threads so far, as clock_getcpuclockid(3) does."""
        return time.clock_gettime((~self.pid << 3) | _SCHED)

    def loop_seconds(self) -> float:
        """Return the processor time of its main thread so far. All servers run their loop on it."""
        told = Path(f"/proc/{self.pid}/task/{self.pid}/schedstat").read_text(encoding="ascii")
        return int(told.split()[0]) / 1e9

    def memory_bytes(self, name: str = "VmRSS") -> int:
        """Return its resident memory, or with `VmHWM` the highest since `forget_peak`."""
        told = Path(f"/proc/{self.pid}/status").read_text(encoding="ascii", errors="replace")
        found = re.search(rf"^{name}:\s+(\d+) kB$", told, re.MULTILINE)
        assert found  # noqa: S101 - proc(5) has both
        return int(found[1]) * 1024

    def forget_peak(self) -> None:
        """Begin to take the highest memory anew."""
        Path(f"/proc/{self.pid}/clear_refs").write_text("5", encoding="ascii")

    async def page(self) -> Page | None:
        """Return its metrics, if it has any.

        Raises:
            TimeoutError, aiohttp.ClientError, ValueError: They cannot be read.
        """
        if self.ops_url is None:
            return None
        async with aiohttp.ClientSession() as session:
            return await fetch.metrics(session, self.ops_url, _METRICS_SECONDS)

    async def lag(self) -> Histogram | None:
        """Return how long its loop has been late so far, if it tells. Raises as `page` does."""
        page = await self.page()
        return page.histogram(LAG) if page else None


def require_gateway() -> None:
    """Return where the gateway is installed.

    Raises:
        NotInstalled: It is not, as in an image of the tools.
    """
    if find_spec("speech_gateway") is None:
        raise stack.NotInstalled(NEEDS_A_GATEWAY)


@contextmanager
def servers(kafka: stack.Addresses, streams: int, log_dir: Path) -> Iterator[list[Server]]:
    """Run the bare servers and a gateway beside `kafka`. uvloop is left out where it is not.

    Raises:
        StackError: One did not start.
    """
    with ExitStack() as running:
        listening = [
            running.enter_context(bare_server(name, log_dir))
            for name, loop in _BARE.items()
            if loop == "asyncio" or find_spec(loop)
        ]
        gateway = running.enter_context(gateway_server(kafka, log_dir, room_for(streams)))
        yield [*listening, gateway]


@contextmanager
def bare_server(name: str, log_dir: Path) -> Iterator[Server]:
    """Run the bare server of that name.

    Raises:
        StackError: It did not start.
    """
    child = name.replace(" ", "-")
    with stack.Process(child, bare.__name__, {bare.LOOP: _BARE[name]}, log_dir) as process:
        port = process.wait_for(event="listening")["port"]
        yield Server(name, f"ws://127.0.0.1:{port}", process.pid)


@contextmanager
def gateway_server(
    kafka: stack.Addresses, log_dir: Path, settings: Mapping[str, str]
) -> Iterator[Server]:
    """Run a gateway on the topics of the bench.

    Raises:
        StackError: It did not start.
    """
    with stack.gateway(kafka, log_dir, {**TOPIC_VARIABLES, **settings}) as gateway:
        yield Server(GATEWAY, gateway.url, gateway.process.pid, gateway.process.ops_url)


def room_for(streams: int) -> dict[str, str]:
    """Return the settings of a gateway for so many clients of this machine, however fast."""
    room = str(max(10, streams))
    return {
        **stack.MANY_FROM_ONE_ADDRESS,
        "MAX_CONNECTIONS": room,
        "MAX_CONNECTIONS_PER_ADDRESS": room,
        "MAX_MESSAGES_PER_SECOND": "10000",  # a burst is to be bounded by the processor alone
    }
