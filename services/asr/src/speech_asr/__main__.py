"""Run the recogniser: `python -m speech_asr`, configured by the environment alone.

The composition root: the only module that knows every other one. `main` reads the settings, `run`
lives.
"""

import asyncio
import sys
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

from speech_lib.consumer import RecordConsumer
from speech_lib.errors import BrokerUnavailable, ConfigError, RegistryUnavailable, TopicMissing
from speech_lib.events import AudioInputEvent, TextRecognizedEvent
from speech_lib.health import Health
from speech_lib.logs import get_logger
from speech_lib.ops import OperationsServer
from speech_lib.producer import RecordProducer
from speech_lib.registry import EventDeserializer, EventSerializer, SchemaRegistry
from speech_lib.service import StopSignals
from speech_lib.service import run as run_service
from speech_lib.startup import Stopped, wait_for

from speech_asr.errors import EngineUnavailable
from speech_asr.handler import Handler, Topics
from speech_asr.metrics import Metrics
from speech_asr.outbox import Condition, Outbox, Report
from speech_asr.pipeline import OnPartitions, Pipeline
from speech_asr.pool import RecogniserPool
from speech_asr.settings import AsrSettings

SERVICE_NAME = "asr"
CLIENT_ID = "speech-asr"
_IN_HAND_PER_WORKER = 2
"""One that is recognised, and one that waits, so that no worker does."""
_DELIVERY_SECONDS = 10.0
_CHECK_EVERY_SECONDS = 2.0
_CHECK_SECONDS = 3.0
_CLOSE_SECONDS = 2.0
_NOT_YET = {"UNKNOWN_TOPIC_OR_PART", "_UNKNOWN_TOPIC"}

_log = get_logger(__name__)


def main() -> int:
    """Run the service from the environment; return the exit code of the process."""
    return run_service(AsrSettings, run, SERVICE_NAME)


async def run(settings: AsrSettings, signals: StopSignals) -> None:
    """Recognise utterances until a signal asks to drain, and drain.

    Raises:
        ConfigError: The engine cannot be loaded, or the operations port cannot be taken.
        SchemaRefused, SchemaNotFound: The registry will not have the schema of the texts.
        TopicMissing: A topic may not be used.
    """
    clock = asyncio.get_running_loop().time
    metrics = Metrics()
    health = Health(("recogniser", "broker", "schema", *Condition), clock())

    def report(condition: str, ok: bool, reason: str = "") -> None:  # noqa: FBT001
        health.set(condition, ok, reason, now=clock())

    async with AsyncExitStack() as stack:
        await _listen(settings, health, metrics, stack)
        _in_background(_announce_drain(signals, health, clock), stack)
        parts = await _start(settings, metrics, report, signals, stack)
        if parts is not None:
            _log.info("ready")
            await _pipeline(settings, parts, metrics, report).run(signals)
    _log.info("stopped")


@dataclass(frozen=True, slots=True)
class _Parts:
    """What has to run before the first record is read."""

    pool: RecogniserPool
    registry: SchemaRegistry
    producer: RecordProducer
    encoder: EventSerializer[TextRecognizedEvent]


async def _listen(
    settings: AsrSettings, health: Health, metrics: Metrics, stack: AsyncExitStack
) -> None:
    ops = OperationsServer(settings.ops_host, settings.ops_port, health, metrics.registry)
    stack.push_async_callback(ops.stop)
    port = await ops.start()
    _log.info("listening", host=settings.ops_host, ops_port=port)


async def _start(
    settings: AsrSettings,
    metrics: Metrics,
    report: Report,
    signals: StopSignals,
    stack: AsyncExitStack,
) -> _Parts | None:
    """Load the engine, then wait for broker and registry; nothing if it was stopped meanwhile."""
    parts = _build(settings, metrics, stack)
    await _load(parts.pool)
    report("recogniser", True, "")
    try:
        await _wait_for_topics(settings, parts.producer, signals)
        report("broker", True, "")
        _in_background(_watch_broker(settings.topic_asr_text, parts.producer, report), stack)
        await wait_for(
            "schema",
            parts.encoder.warm_up,
            retry_on=RegistryUnavailable,
            log=_log,
            stop=signals.drain,
        )
    except Stopped:
        return None
    for condition in ("schema", *Condition):
        report(condition, True, "")
    return parts


def _build(settings: AsrSettings, metrics: Metrics, stack: AsyncExitStack) -> _Parts:
    pool = RecogniserPool(
        settings.engine(), settings.asr_workers, on_replaced=metrics.workers_replaced.inc
    )
    stack.callback(pool.close)
    registry = SchemaRegistry(settings.schema_registry_url)
    stack.callback(registry.close)
    producer = RecordProducer(
        settings.kafka(), client_id=CLIENT_ID, delivery_timeout=_DELIVERY_SECONDS
    )
    stack.push_async_callback(producer.close, _CLOSE_SECONDS)
    encoder = EventSerializer(
        registry,
        settings.topic_asr_text,
        TextRecognizedEvent,
        auto_register=settings.schema_auto_register,
    )
    return _Parts(pool, registry, producer, encoder)


async def _load(pool: RecogniserPool) -> None:
    try:
        await pool.start()
    except EngineUnavailable as error:
        raise ConfigError(str(error)) from None


async def _wait_for_topics(
    settings: AsrSettings, producer: RecordProducer, signals: StopSignals
) -> None:
    for topic in (
        settings.topic_audio_ingress,
        settings.topic_asr_text,
        settings.topic_dead_letter,
    ):
        await wait_for(
            "broker",
            partial(_check, producer, topic),
            retry_on=BrokerUnavailable,
            log=_log,
            stop=signals.drain,
        )


def _check(producer: RecordProducer, topic: str) -> None:
    """Ask for a topic; one that is not there yet is waited for, one that is forbidden is not."""
    try:
        producer.check(topic, _CHECK_SECONDS)
    except TopicMissing as missing:
        if missing.reason in _NOT_YET:
            raise BrokerUnavailable(missing.reason) from None
        raise


def _pipeline(settings: AsrSettings, parts: _Parts, metrics: Metrics, report: Report) -> Pipeline:
    handler = Handler(
        EventDeserializer(parts.registry, AudioInputEvent),
        parts.pool,
        parts.encoder,
        Outbox(parts.producer, report),
        Topics(settings.topic_asr_text, settings.topic_dead_letter),
        metrics,
    )
    return Pipeline(
        partial(_open_consumer, settings),
        handler.handle,
        capacity=settings.asr_workers * _IN_HAND_PER_WORKER,
        metrics=metrics,
    )


def _open_consumer(
    settings: AsrSettings, on_assign: OnPartitions, on_revoke: OnPartitions
) -> RecordConsumer:
    return RecordConsumer(
        settings.kafka(),
        group_id=settings.asr_group_id,
        topics=[settings.topic_audio_ingress],
        client_id=CLIENT_ID,
        on_assign=on_assign,
        on_revoke=on_revoke,
    )


def _in_background(work: Coroutine[Any, Any, None], stack: AsyncExitStack) -> None:
    task = asyncio.create_task(work)

    async def end() -> None:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    stack.push_async_callback(end)


async def _announce_drain(signals: StopSignals, health: Health, clock: Callable[[], float]) -> None:
    await signals.drain.wait()
    health.drain(clock())
    _log.info("draining")


async def _watch_broker(topic: str, producer: RecordProducer, report: Report) -> None:
    """Keep the readiness true to whether a broker answers."""
    while True:
        await asyncio.sleep(_CHECK_EVERY_SECONDS)
        try:
            await asyncio.to_thread(producer.check, topic, _CHECK_SECONDS)
        except (BrokerUnavailable, TopicMissing) as error:
            report("broker", False, error.reason)
        else:
            report("broker", True, "")


if __name__ == "__main__":
    sys.exit(main())
