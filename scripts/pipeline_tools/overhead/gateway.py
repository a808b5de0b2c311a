"""A gateway in a process of its own, with or without metrics, logs and traces, for `overhead`.

It is the whole gateway, wired as its `__main__` does. `BARE` is built by replacing parts, because
nothing can switch them off in a gateway.
"""

import asyncio
import multiprocessing
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, replace
from enum import StrEnum
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Self, cast

from speech_gateway import __version__
from speech_gateway.__main__ import server_config
from speech_gateway.admission import Admission
from speech_gateway.config import GatewaySettings
from speech_gateway.connection import GatewayConnection
from speech_gateway.conversation import Context, Conversation
from speech_gateway.metrics import Metrics
from speech_gateway.publisher import CLIENT_ID, Publisher
from speech_gateway.server import GatewayServer
from speech_lib import logs, looplag
from speech_lib.collector import OtlpSettings
from speech_lib.events import AudioInputEvent
from speech_lib.health import Health
from speech_lib.ops import OperationsServer
from speech_lib.producer import RecordProducer
from speech_lib.registry import EventSerializer, SchemaRegistry
from speech_lib.service import in_background
from speech_lib.telemetry import open_spans
from speech_lib.tracing import TraceContext

from pipeline_tools.stack import Addresses

_ALL_THREADS = 2
_START_SECONDS = 30.0
_STOP_SECONDS = 10.0
_CHECK_SECONDS = 10.0
_CLOSE_SECONDS = 2.0
_ENVIRON = {
    "PORT": "0",
    "MAX_CONNECTIONS": "1000",
    "MAX_CONNECTIONS_PER_ADDRESS": "1000",
    "MAX_MESSAGES_PER_SECOND": "100000",
}


class Variant(StrEnum):
    """How a gateway is watched."""

    BARE = "bare"
    """No metrics, no logs, the same trace context for all."""
    WATCHED = "watched"
    """As it runs: metrics that are scraped, logs in JSON, trace context."""
    EXPORTED = "exported"
    """That, and its spans are exported over OTLP."""


@dataclass(frozen=True, slots=True)
class Ports:
    """Where a gateway listens, on 127.0.0.1."""

    clients: int
    operations: int


@dataclass(frozen=True, slots=True)
class MeasuredGateway:
    """A gateway that runs, and whose processor time can be seen."""

    ports: Ports
    pid: int

    def cpu_seconds(self) -> float:
        """Return the processor time of all its threads so far, without asking it."""
        # What clock_getcpuclockid(3) returns for another process on Linux.
        return time.clock_gettime(~self.pid << 3 | _ALL_THREADS)


@contextmanager
def measured_gateway(
    variant: Variant, kafka: Addresses, log: Path, endpoint: str
) -> Iterator[MeasuredGateway]:
    """Run a gateway beside a broker; `endpoint` is where `EXPORTED` sends its spans.

    Raises:
        TimeoutError: It did not start.
    """
    here, there = multiprocessing.Pipe()
    environ = {
        **_ENVIRON,
        "KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
        "SCHEMA_REGISTRY_URL": kafka.registry_url,
    }
    process = multiprocessing.get_context("spawn").Process(
        target=_main, args=(variant, environ, str(log), endpoint, there), daemon=True
    )
    process.start()
    try:
        if not here.poll(_START_SECONDS):
            raise TimeoutError(f"the gateway ({variant}) did not start")
        assert process.pid is not None  # noqa: S101 - it has been started
        yield MeasuredGateway(here.recv(), process.pid)
    finally:
        _stop(process, here)


def _stop(process: BaseProcess, connection: Connection) -> None:
    connection.close()  # the gateway ends when its end is closed
    process.join(_STOP_SECONDS)
    process.kill()
    process.join()


def _main(
    variant: Variant, environ: Mapping[str, str], log: str, endpoint: str, connection: Connection
) -> None:
    os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), 1)
    settings = GatewaySettings.load(environ)
    if variant is not Variant.BARE:
        logs.configure(settings, "gateway")
    asyncio.run(_serve(settings, variant, endpoint, connection))


async def _serve(
    settings: GatewaySettings, variant: Variant, endpoint: str, connection: Connection
) -> None:
    loop, over = asyncio.get_running_loop(), asyncio.Event()
    async with AsyncExitStack() as stack:
        server, metrics = await _build(settings, variant, endpoint, stack)
        health = Health((), loop.time())
        operations = OperationsServer("127.0.0.1", 0, health, metrics.registry)
        stack.push_async_callback(operations.stop)
        connection.send(Ports(await server.start(), await operations.start()))
        loop.add_reader(connection.fileno(), over.set)
        await over.wait()
        loop.remove_reader(connection.fileno())
        server.drain(loop.time())
        await server.close()


async def _build(
    settings: GatewaySettings, variant: Variant, endpoint: str, stack: AsyncExitStack
) -> tuple[GatewayServer, Metrics]:
    """Wire a gateway as its `__main__` does, but for what the variant leaves out."""
    otlp = OtlpSettings(endpoint) if variant is Variant.EXPORTED else None
    spans = open_spans(otlp, service=CLIENT_ID, version=__version__)
    stack.push_async_callback(spans.close)
    registry = SchemaRegistry(settings.schema_registry_url)
    stack.callback(registry.close)
    topic = settings.topic_audio_ingress
    serializer = EventSerializer(registry, topic, AudioInputEvent, auto_register=True)
    await asyncio.to_thread(serializer.warm_up)
    producer = RecordProducer(
        settings.kafka(), client_id=CLIENT_ID, delivery_timeout=settings.delivery_timeout_seconds
    )
    stack.push_async_callback(producer.close, _CLOSE_SECONDS)
    await asyncio.to_thread(producer.check, topic, _CHECK_SECONDS)
    admission = Admission(settings.max_connections, settings.max_connections_per_address)
    metrics = _NoMetrics() if variant is Variant.BARE else Metrics()
    kind = _BareServer if variant is Variant.BARE else GatewayServer
    server = kind(
        server_config(settings),
        Publisher(producer, serializer, topic, spans),
        admission,
        lambda: True,
        metrics,
        spans,
    )
    if variant is not Variant.BARE:
        metrics.watch(lambda: True, lambda: producer.queued)
        in_background(looplag.measure(metrics.loop_lag_seconds.observe), stack)
    return server, metrics


class _NoMetric:
    """Counts nothing."""

    def labels(self, *_: object) -> Self:
        return self

    def inc(self, *_: object) -> None:
        """Do nothing."""

    dec = observe = set = inc


class _NoMetrics(Metrics):
    """Metrics that count nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.sessions_live = self.refusals = cast("None", _NoMetric())  # type: ignore[assignment]


class _NoTrace(TraceContext):
    """The same ids for every span, so that none are made."""

    def child(self) -> Self:
        return self


_SAME = _NoTrace("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331", 0)


class _BareServer(GatewayServer):
    """A server that reports of nothing, and follows no trace."""

    def _context(self, connection: GatewayConnection) -> Context:
        return replace(super()._context(connection), trace=_SAME)

    def _note_end(self, conversation: Conversation, address: str) -> None:  # noqa: ARG002
        self._conversations.discard(conversation)
