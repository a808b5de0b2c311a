"""Run a gateway without a broker in a process of its own, to be attacked and measured from outside.

It is the whole gateway, with its configuration, its logs and its signals, but for the store, which
says yes and keeps nothing: what grows is the gateway's own. `lone_gateway` runs it; used by the
tests of floods and storms.
"""

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from speech_gateway.__main__ import admission_of, server_config
from speech_gateway.metrics import Metrics
from speech_gateway.server import GatewayServer
from speech_gateway.settings import GatewaySettings
from speech_gateway.utterance import Context, Receipt, Utterance
from speech_lib.service.health import Health
from speech_lib.service.logs import get_logger
from speech_lib.service.ops import OperationsServer
from speech_lib.service.run import StopSignals, fastest_event_loop
from speech_lib.service.run import run as run_service
from speech_tools.stack import Process

_MODULE = "support.lone_gateway"
_ENVIRON = {
    "KAFKA_BOOTSTRAP_SERVERS": "nobody:9092",  # nobody connects to either
    "SCHEMA_REGISTRY_URL": "http://nobody",
    "PORT": "0",
    "OPS_PORT": "0",
    # What is there goes on: it may name the sources of a copy.
    "PYTHONPATH": os.pathsep.join(
        filter(None, (str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH")))
    ),
}
_log = get_logger(__name__)

LOOP = "LONE_GATEWAY_LOOP"
"""The environment variable that names one of `LOOPS`; by default it is that of a gateway."""
LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": fastest_event_loop}


@dataclass(frozen=True, slots=True)
class Inside:
    """What only the gateway itself knows.

    Attributes:
        live: How many slots are taken.
        tasks: How many tasks its event loop has.
    """

    live: int
    tasks: int


@dataclass(frozen=True, slots=True)
class LoneGateway:
    """A gateway that listens.

    Attributes:
        port: On 127.0.0.1.
        url: Where clients connect.
        ops_port: Its operations port, on 127.0.0.1.
    """

    port: int
    url: str
    ops_port: int
    _pid: int
    _process: Process

    def look_inside(self) -> Inside:
        """Ask the gateway; it answers when its loop comes to it."""
        self._process.signal(signal.SIGUSR1)
        told = self._process.wait_for(event="inside")
        return Inside(told["live"], told["tasks"])

    def memory(self) -> int:
        """Return the bytes of resident memory."""
        return self._status("VmRSS")

    def most_memory(self) -> int:
        """Return the most bytes of resident memory that there ever were."""
        return self._status("VmHWM")

    def processor_seconds(self) -> float:
        """Return the processor time of the thread with the event loop."""
        told = Path(f"/proc/{self._pid}/schedstat").read_text(encoding="ascii")
        return int(told.split()[0]) / 1e9

    def descriptors(self) -> int:
        """Return how many files and sockets are open."""
        return sum(1 for _ in Path(f"/proc/{self._pid}/fd").iterdir())

    def _status(self, name: str) -> int:
        for line in Path(f"/proc/{self._pid}/status").read_text(encoding="ascii").splitlines():
            key, _, value = line.partition(":")
            if key == name:
                return int(value.removesuffix("kB")) * 1024
        raise LookupError(f"this kernel does not tell {name}")


@contextmanager
def lone_gateway(log_dir: Path, settings: Mapping[str, str] | None = None) -> Iterator[LoneGateway]:
    """Run a gateway on a free port; `settings` are further environment variables."""
    environ = {**_ENVIRON, LOOP: os.environ.get(LOOP, "uvloop"), **(settings or {})}
    with Process("lone-gateway", _MODULE, environ, log_dir) as process:
        told = process.wait_for(event="listening")
        port, url = told["port"], f"ws://127.0.0.1:{told['port']}/ws/audio"
        yield LoneGateway(port, url, told["ops_port"], told["pid"], process)


class _Yes:
    """A store that stores nothing."""

    def publish(self, _context: Context, _utterance: Utterance) -> Awaitable[Receipt]:
        return self._answer()

    async def _answer(self) -> Receipt:
        return Receipt("event", "speech.audio.ingress", partition=0, offset=0)


async def _run(settings: GatewaySettings, signals: StopSignals) -> None:
    loop = asyncio.get_running_loop()
    admission = admission_of(settings)
    metrics = Metrics()
    server = GatewayServer(server_config(settings), _Yes(), admission, lambda: True, metrics)
    health = Health([], loop.time())
    ops = OperationsServer(settings.ops_host, settings.ops_port, health, metrics.registry)

    def tell() -> None:
        _log.info("inside", live=admission.live, tasks=len(asyncio.all_tasks()))

    loop.add_signal_handler(signal.SIGUSR1, tell)
    ops_port = await ops.start()
    _log.info("listening", port=await server.start(), ops_port=ops_port, pid=os.getpid())
    await signals.drain.wait()
    server.drain(loop.time())
    await server.close()
    await ops.stop()


if __name__ == "__main__":
    new_event_loop = LOOPS[os.environ.get(LOOP, "uvloop")]
    sys.exit(run_service(GatewaySettings, _run, "gateway", new_event_loop=new_event_loop))
