"""Run the recogniser: `python -m speech_asr`, configured by the environment alone.

The composition root: the only module that knows every other one. `main` reads the settings, `run`
lives.
"""

import asyncio
import sys
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial

from speech_lib.errors import ConfigError, RegistryUnavailable
from speech_lib.events import AudioInputEvent, TextRecognizedEvent
from speech_lib.kafka.consumer import RecordConsumer
from speech_lib.kafka.producer import RecordProducer
from speech_lib.kafka.records import OnPartitions
from speech_lib.kafka.registry import EventDeserializer, EventSerializer, SchemaRegistry
from speech_lib.service.health import Health
from speech_lib.service.logs import get_logger
from speech_lib.service.ops import OperationsServer
from speech_lib.service.readiness import wait_for_topic, watch_broker
from speech_lib.service.run import StopSignals, in_background
from speech_lib.service.run import run as run_service
from speech_lib.service.startup import Stopped, wait_for
from speech_lib.telemetry import looplag
from speech_lib.telemetry.export import open_spans

from speech_asr import __version__, trial
from speech_asr.errors import EngineUnavailable
from speech_asr.handler import Handler, Topics
from speech_asr.metrics import Metrics
from speech_asr.outbox import Condition, Outbox, Report
from speech_asr.pipeline import WINDOW_RECORDS, Pipeline
from speech_asr.pool import RecogniserPool
from speech_asr.settings import AsrSettings
from speech_asr.traces import CLIENT_ID, Traces

SERVICE_NAME = "asr"
_KEPT_WORKERS = 1
"""For whoever comes while one source keeps all others busy: an utterance cannot be interrupted, and
a long one would hold up everybody else for as long as it takes."""
_DELIVERY_SECONDS = 10.0
_CLOSE_SECONDS = 2.0

_log = get_logger(__name__)


def main() -> int:
    """Run the service from the environment; return the exit code of the process."""
    return run_service(AsrSettings, run, SERVICE_NAME)


async def run(settings: AsrSettings, signals: StopSignals) -> None:
    """Recognise utterances until a signal asks to drain, and drain.

    Raises:
        ConfigError: The engine cannot be loaded, the operations port cannot be taken, or spans
            cannot be exported.
        SchemaRefused, SchemaNotFound: The registry will not have a schema.
        TopicMissing: A topic may not be used.
    """
    clock = asyncio.get_running_loop().time
    metrics = Metrics()
    health = Health(("recogniser", "broker", "schema", *Condition, "group"), clock())
    metrics.watch(lambda: health.ready)
    announced = asyncio.Event()

    def report(condition: str, ok: bool, reason: str = "") -> None:  # noqa: FBT001
        health.set(condition, ok, reason, now=clock())
        if health.ready and not announced.is_set():
            announced.set()
            _log.info("ready")

    async with AsyncExitStack() as stack:
        spans = open_spans(settings.otlp(), service=CLIENT_ID, version=__version__)
        stack.push_async_callback(spans.close)
        in_background(looplag.measure(metrics.loop_lag_seconds.observe), stack)
        await _listen(settings, health, metrics, stack)
        in_background(_announce_drain(signals, health, clock), stack)
        parts = await _start(settings, metrics, report, signals, stack)
        if parts is not None:
            traces = Traces(spans, settings.asr_group_id)
            await _pipeline(settings, parts, metrics, report, traces).run(signals)
    _log.info("stopped")


@dataclass(frozen=True, slots=True)
class _Parts:
    """What has to run before the first record is read."""

    pool: RecogniserPool
    producer: RecordProducer
    decoder: EventDeserializer[AudioInputEvent]
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
    parts = _build(settings, metrics, report, stack)
    await _load(parts.pool)
    report("recogniser", True, "")
    try:
        await _wait_for_topics(settings, parts.producer, signals)
        report("broker", True, "")
        watch = watch_broker(
            parts.producer, settings.topic_asr_text, partial(report, "broker"), log=_log
        )
        in_background(watch, stack)
        await _wait_for_schemas(settings, parts, signals)
    except Stopped:
        return None
    for condition in ("schema", *Condition):
        report(condition, True, "")
    return parts


def _build(
    settings: AsrSettings, metrics: Metrics, report: Report, stack: AsyncExitStack
) -> _Parts:
    pool = RecogniserPool(
        settings.engine(),
        settings.asr_workers + _KEPT_WORKERS,
        on_replaced=metrics.workers_replaced.inc,
        report=partial(report, "recogniser"),
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
    return _Parts(pool, producer, EventDeserializer(registry, AudioInputEvent), encoder)


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
        await wait_for_topic(producer, topic, log=_log, stop=signals.drain)


async def _wait_for_schemas(settings: AsrSettings, parts: _Parts, signals: StopSignals) -> None:
    """Learn the schema of what is read, then of what is written."""
    warm_up_decoder = partial(
        parts.decoder.warm_up,
        settings.topic_audio_ingress,
        auto_register=settings.schema_auto_register,
    )
    for warm_up in (warm_up_decoder, parts.encoder.warm_up):
        await wait_for(
            "schema", warm_up, retry_on=RegistryUnavailable, log=_log, stop=signals.drain
        )


def _pipeline(
    settings: AsrSettings, parts: _Parts, metrics: Metrics, report: Report, traces: Traces
) -> Pipeline:
    handler = Handler(
        parts.decoder,
        parts.pool,
        parts.encoder,
        Outbox(parts.producer, report),
        Topics(settings.topic_asr_text, settings.topic_dead_letter),
        metrics,
        traces,
    )
    return Pipeline(
        partial(_open_consumer, settings),
        handler.handle,
        capacity=WINDOW_RECORDS,
        metrics=metrics,
        report=partial(report, "group"),
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
        trial_decode=partial(trial.read, settings.schema_registry_url),
    )


async def _announce_drain(signals: StopSignals, health: Health, clock: Callable[[], float]) -> None:
    await signals.drain.wait()
    health.drain(clock())
    _log.info("draining")


if __name__ == "__main__":
    sys.exit(main())
