"""The way of one utterance: decode, recognise, store the text; or store it as a dead letter.

`pipeline` runs one `handle` for each record it has in hand, and commits when it returns.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from speech_lib.errors import RegistryUnavailable, SchemaRefused
from speech_lib.events import TextRecognized, TextRecognizedEvent
from speech_lib.kafka import headers
from speech_lib.kafka.records import ReceivedRecord, Record
from speech_lib.service.logs import get_logger
from speech_lib.telemetry.context import TraceContext
from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_exception,
    retry_if_exception_type,
    wait_exponential,
)

from speech_asr import intake
from speech_asr.engine import Recognition, duration_s
from speech_asr.errors import Reason, Unprocessable
from speech_asr.intake import Decoder, Utterance
from speech_asr.metrics import Metrics, Outcome
from speech_asr.outbox import Outbox
from speech_asr.traces import Trace, Traces

SOURCE_SERVICE = "asr"
_DECODED_AT_ONCE = 2
"""So many threads at most wait for the registry; the consumer needs one, too."""
_NO_TRACES = Traces()
_log = get_logger(__name__)


class Recogniser(Protocol):
    """What turns samples into words (`speech_asr.pool.RecogniserPool`)."""

    async def recognise(
        self, samples: bytes, on_begun: Callable[[], None], source: str, hint: str | None
    ) -> tuple[Recognition, float]:
        """Return what was heard and the seconds it took, or raise `Unprocessable`."""
        ...


class Encoder(Protocol):
    """What turns an event into a record's value (`speech_lib.kafka.registry.EventSerializer`)."""

    def encode(self, event: TextRecognizedEvent) -> bytes:
        """Return the value, without I/O."""
        ...


@dataclass(frozen=True, slots=True)
class Topics:
    """Where results go.

    Attributes:
        text: Recognised texts.
        dead_letter: Records that cannot be processed.
    """

    text: str
    dead_letter: str


class Handler:
    """Brings each record to its end: a text or a dead letter that the broker has stored."""

    def __init__(
        self,
        decoder: Decoder,
        recogniser: Recogniser,
        encoder: Encoder,
        outbox: Outbox,
        topics: Topics,
        metrics: Metrics,
        traces: Traces = _NO_TRACES,
    ) -> None:
        self._decoder = decoder
        self._recogniser = recogniser
        self._encoder = encoder
        self._outbox = outbox
        self._topics = topics
        self._metrics = metrics
        self._traces = traces
        self._decoding = asyncio.Semaphore(_DECODED_AT_ONCE)

    async def handle(
        self, record: ReceivedRecord, on_begun: Callable[[], None] = lambda: None
    ) -> None:
        """Return when the result of a record is stored; when cancelled, it may be stored or not.

        Args:
            record: What was read.
            on_begun: Called when it has a worker, or needs none. Before that nothing is lost by
                cancelling, and nothing stored.
        """
        trace = self._traces.begin(record)
        reason = await self._recognise_or_refuse(record, trace, on_begun)
        if reason is not None:
            on_begun()
            await self._bury(record, reason, trace)
        trace.end(reason.value if reason else None)

    async def _recognise_or_refuse(
        self, record: ReceivedRecord, trace: Trace, on_begun: Callable[[], None]
    ) -> Reason | None:
        """Return why there is no text; nothing where there is one."""
        try:
            await self._recognise(record, trace, on_begun)
        except Unprocessable as refusal:
            return refusal.reason
        except Exception:  # noqa: BLE001 - a defect must not stop a partition for good
            _log.exception("unexpected_error")
            return Reason.INTERNAL_ERROR
        return None

    async def _recognise(
        self, record: ReceivedRecord, trace: Trace, on_begun: Callable[[], None]
    ) -> None:
        if record.damaged_from is not None:
            raise Unprocessable(Reason.UNREADABLE_BATCH)
        if not record.headers_readable:
            raise Unprocessable(Reason.UNREADABLE_HEADERS)
        utterance = await self._read(record)
        began_ns, audio_seconds = time.time_ns(), duration_s(utterance.samples)
        recognition, seconds = await self._recogniser.recognise(
            utterance.samples, on_begun, headers.source_of(record), utterance.language_hint
        )
        trace.recognised(began_ns, seconds, audio_seconds)
        context = trace.child()
        text = self._text(record, utterance, recognition, trace.fetched_ms, context)
        with trace.sending(text, context) as sending:
            sending.stored = await self._outbox.store_text(text)
        self._count(recognition, audio_seconds, seconds)
        _log.info(
            "utterance",
            correlation_id=utterance.correlation_id,
            partition=record.partition,
            offset=record.offset,
            audio_seconds=round(audio_seconds, 3),
            recognise_ms=round(seconds * 1000),
            real_time_factor=round(seconds / audio_seconds, 3) if audio_seconds else None,
            outcome=_outcome(recognition),
        )

    async def _read(self, record: ReceivedRecord) -> Utterance:
        """Decode a record, waiting for the registry, or a thread, as long as it takes."""

        def complain(state: RetryCallState) -> None:
            what = "thread" if state.outcome and _no_thread(state.outcome.exception()) else "schema"
            _log.warning(f"{what}_unavailable", partition=record.partition)

        attempts = AsyncRetrying(
            retry=retry_if_exception_type((RegistryUnavailable, SchemaRefused))
            | retry_if_exception(_no_thread),
            wait=wait_exponential(multiplier=0.2, max=5),
            before_sleep=complain,
        )
        return await attempts(self._decode, record.value)

    async def _decode(self, value: bytes) -> Utterance:
        async with self._decoding:
            return await asyncio.to_thread(intake.read, self._decoder, value)

    def _text(
        self,
        record: ReceivedRecord,
        utterance: Utterance,
        recognition: Recognition,
        fetched_ms: int,
        context: TraceContext,
    ) -> Record:
        event = TextRecognizedEvent.new(
            correlation_id=utterance.correlation_id,
            source_service=SOURCE_SERVICE,
            payload=TextRecognized(recognition.text, recognition.language, recognition.confidence),
        )
        return Record(
            topic=self._topics.text,
            key=utterance.correlation_id.encode(),
            value=self._encoder.encode(event),
            headers=headers.for_asr_text(
                event,
                traceparent=context.header(),
                input_event_id=utterance.event_id,
                fetched_ms=fetched_ms,
                recognised_ms=headers.now_ms(),
                utterance=record,
            ),
        )

    def _count(self, recognition: Recognition, audio_seconds: float, seconds: float) -> None:
        self._metrics.utterances.labels(_outcome(recognition)).inc()
        self._metrics.audio_seconds.inc(audio_seconds)
        self._metrics.recognition_seconds.observe(seconds)
        if audio_seconds:
            self._metrics.real_time_factor.observe(seconds / audio_seconds)

    async def _bury(self, record: ReceivedRecord, reason: Reason, trace: Trace) -> None:
        """Store the record as it came in the dead-letter topic, or as much of it as fits."""
        topic, why = self._topics.dead_letter, reason.value

        def empty(omitted: str) -> Record:
            told = headers.for_empty_dead_letter(record, reason=why, omitted=omitted)
            return Record(topic, b"", b"", told)

        told = headers.for_dead_letter(record, reason=why)
        whole = Record(topic, record.key, record.value, told)
        if record.damaged_from is not None:
            whole = empty("unreadable")
        # It keeps its headers as it came, so the trace of who made it is told by a link.
        with trace.sending(whole, trace.child(), link=trace.processing.parent) as sending:
            sending.stored = await self._outbox.store_dead_letter(whole, empty)
        self._metrics.utterances.labels(Outcome.DEAD_LETTER.value).inc()
        self._metrics.dead_letters.labels(reason.value).inc()
        _log.warning(
            "utterance",
            correlation_id=record.headers.get(headers.CORRELATION_ID),
            partition=record.partition,
            offset=record.offset,
            outcome=Outcome.DEAD_LETTER.value,
            reason=reason.value,
        )


def _no_thread(error: BaseException | None) -> bool:
    """Tell a machine that is short of threads, which says nothing of the record."""
    return isinstance(error, RuntimeError) and "start new thread" in str(error)


def _outcome(recognition: Recognition) -> str:
    return (Outcome.RECOGNISED if recognition.text else Outcome.SILENT).value
