"""Run the gateway: `python -m speech_gateway`, configured by the environment alone.

The composition root: only this module knows every other one. `main` reads the settings, and `run`
is the life of the service.
"""

import asyncio
import sys
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from functools import partial

from speech_lib.errors import RegistryUnavailable
from speech_lib.events import AudioInputEvent, TextRecognizedEvent
from speech_lib.kafka.producer import RecordProducer
from speech_lib.kafka.registry import EventDeserializer, EventSerializer, SchemaRegistry
from speech_lib.kafka.tail import TopicTail
from speech_lib.service.config import unusable_address
from speech_lib.service.health import Health
from speech_lib.service.logs import get_logger
from speech_lib.service.ops import OperationsServer
from speech_lib.service.readiness import wait_for_topic, watch_broker
from speech_lib.service.run import StopSignals, in_background
from speech_lib.service.run import run as run_service
from speech_lib.service.startup import Stopped, unless_stopped, wait_for
from speech_lib.telemetry import looplag
from speech_lib.telemetry.export import open_spans

from speech_gateway import __version__, room
from speech_gateway.admission import Admission
from speech_gateway.metrics import Metrics
from speech_gateway.publisher import CLIENT_ID, Publisher
from speech_gateway.results import CLIENT_ID as RESULTS_CLIENT_ID
from speech_gateway.results import Results
from speech_gateway.server import GatewayServer
from speech_gateway.server_config import ServerConfig
from speech_gateway.settings import GatewaySettings

SERVICE_NAME = "gateway"
_CLOSE_SECONDS = 2.0

_log = get_logger(__name__)


def main() -> int:
    """Run the service from the environment; return the exit code of the process."""
    return run_service(GatewaySettings, run, SERVICE_NAME)


async def run(settings: GatewaySettings, signals: StopSignals) -> None:
    """Serve until a signal asks to drain, and drain.

    It listens at once, so that clients that come before the broker learn to try again.

    Raises:
        ConfigError: An address cannot be listened on, or spans cannot be exported.
        SchemaRefused, SchemaNotFound: The registry does not take the schema of the event.
        TopicMissing: The topic is not there, or may not be used.
    """
    clock = asyncio.get_running_loop().time
    _make_room(settings)
    health = Health(conditions_of(settings), clock())
    metrics = Metrics()
    async with AsyncExitStack() as stack:
        spans = open_spans(settings.otlp(), service=CLIENT_ID, version=__version__)
        stack.push_async_callback(spans.close)
        in_background(looplag.measure(metrics.loop_lag_seconds.observe), stack)
        parts = _build(settings, health, stack)
        metrics.watch(lambda: health.ready, lambda: parts.producer.queued)
        server = GatewayServer(
            config=server_config(settings),
            store=Publisher(parts.producer, parts.serializer, settings.topic_audio_ingress, spans),
            admission=admission_of(settings),
            is_ready=lambda: health.admits(clock()),
            metrics=metrics,
            answers=parts.results,
            spans=spans,
        )
        await _listen(settings, server, health, metrics, stack)
        await _get_ready(settings, parts, health, signals, stack)
        await signals.drain.wait()
        await _drain(settings.drain_seconds, server, health, signals, clock)
    _log.info("stopped")


def _make_room(settings: GatewaySettings) -> None:
    """Have the files that all clients need, and warn where the memory does not suffice.

    Raises:
        ConfigError: There cannot be so many files.
    """
    room.open_files_for(settings.max_connections)
    limit = room.memory_limit()
    needed = room.worst_case_bytes(settings.max_connections, settings.max_buffer_bytes)
    if limit is not None and limit < needed:
        _log.warning(
            "memory_may_not_suffice",
            variable="MAX_CONNECTIONS",
            needed_mb=needed // room.MIB,
            limit_mb=limit // room.MIB,
        )


def conditions_of(settings: GatewaySettings) -> tuple[str, ...]:
    """Return what must hold for the gateway to be ready."""
    return ("broker", "schema", *(("results",) if settings.results == "on" else ()))


def admission_of(settings: GatewaySettings) -> Admission:
    """Return the admission that the settings ask for."""
    return Admission(
        settings.max_connections,
        settings.max_connections_per_address,
        settings.max_sessions_per_second_per_address,
    )


def server_config(settings: GatewaySettings) -> ServerConfig:
    """Return the part of the settings that the server needs."""
    return ServerConfig(
        host=settings.host,
        port=settings.port,
        limits=settings.limits(),
        fill_at_limit=settings.buffer_limit_action == "publish",
        result_timeout=settings.result_timeout_seconds,
        origin_allowlist=settings.origin_allowlist,
        trusted_proxies=settings.trusted_proxies,
        max_audio_speed=settings.max_audio_speed,
        utterances_at_once=settings.max_connections_per_address,
        handshake_timeout=settings.handshake_timeout_seconds,
    )


@dataclass(frozen=True, slots=True)
class _Parts:
    """What `run` needs to store utterances."""

    producer: RecordProducer
    serializer: EventSerializer[AudioInputEvent]
    results: Results | None


def _build(settings: GatewaySettings, health: Health, stack: AsyncExitStack) -> _Parts:
    registry = SchemaRegistry(settings.schema_registry_url)
    stack.callback(registry.close)
    producer = RecordProducer(
        settings.kafka(),
        client_id=CLIENT_ID,
        delivery_timeout=settings.delivery_timeout_seconds,
        queue_bytes=room.queue_bytes(settings.max_connections, settings.max_buffer_bytes),
    )
    stack.push_async_callback(producer.close, _CLOSE_SECONDS)
    serializer = EventSerializer(
        registry,
        settings.topic_audio_ingress,
        AudioInputEvent,
        auto_register=settings.schema_auto_register,
    )
    return _Parts(producer, serializer, _read_results(settings, registry, health, stack))


def _read_results(
    settings: GatewaySettings, registry: SchemaRegistry, health: Health, stack: AsyncExitStack
) -> Results | None:
    """Begin to read texts, where clients may ask for theirs."""
    if settings.results == "off":
        return None
    clock = asyncio.get_running_loop().time
    topics = (settings.topic_asr_text, settings.topic_dead_letter)
    results = Results(
        partial(TopicTail, settings.kafka(), topics, client_id=RESULTS_CLIENT_ID),
        EventDeserializer(registry, TextRecognizedEvent),
        dead_letters=settings.topic_dead_letter,
        report=lambda ok, reason: health.set("results", ok, reason, now=clock()),
    )
    in_background(results.run(), stack)
    return results


async def _listen(
    settings: GatewaySettings,
    server: GatewayServer,
    health: Health,
    metrics: Metrics,
    stack: AsyncExitStack,
) -> None:
    if not settings.origin_allowlist:
        _log.warning("every_origin_allowed", variable="ORIGIN_ALLOWLIST")
    if settings.max_audio_speed < settings.max_connections_per_address:
        _log.warning("live_speech_slowed", variable="MAX_AUDIO_SPEED")
    ops = OperationsServer(settings.ops_host, settings.ops_port, health, metrics.registry)
    stack.push_async_callback(ops.stop)
    ops_port = await ops.start()
    try:
        port = await server.start()
    except OSError as error:
        raise unusable_address("HOST, PORT", error) from None
    stack.push_async_callback(_close, server)
    _log.info("listening", host=settings.host, port=port, ops_port=ops_port)


async def _close(server: GatewayServer) -> None:
    """Close the server, after a drain or after an error."""
    server.drain(asyncio.get_running_loop().time())
    await server.close()


async def _get_ready(
    settings: GatewaySettings,
    parts: _Parts,
    health: Health,
    signals: StopSignals,
    stack: AsyncExitStack,
) -> None:
    """Wait for broker and registry, then watch the broker in the background."""
    clock, stop, topic = (
        asyncio.get_running_loop().time,
        signals.drain,
        settings.topic_audio_ingress,
    )
    with suppress(Stopped):
        await wait_for_topic(parts.producer, topic, log=_log, stop=stop)
        health.set("broker", True, now=clock())
        watch = watch_broker(
            parts.producer,
            topic,
            lambda ok, reason: health.set("broker", ok, reason, now=clock()),
            log=_log,
        )
        in_background(watch, stack)
        warm_up, later = parts.serializer.warm_up, RegistryUnavailable
        await wait_for("schema", warm_up, retry_on=later, log=_log, stop=stop)
        health.set("schema", True, now=clock())
        if parts.results:
            await unless_stopped("results", parts.results.reading.wait(), stop)
        _log.info("ready")


async def _drain(
    seconds: float,
    server: GatewayServer,
    health: Health,
    signals: StopSignals,
    clock: Callable[[], float],
) -> None:
    """Give clients `seconds` to end; a second signal ends them now."""
    health.drain(clock())
    _log.info("draining", seconds=seconds)
    server.drain(clock() + seconds)
    hurry = asyncio.create_task(signals.now.wait())
    hurry.add_done_callback(lambda task: None if task.cancelled() else server.drain(clock()))
    try:
        await server.close()
    finally:
        hurry.cancel()


if __name__ == "__main__":
    sys.exit(main())
