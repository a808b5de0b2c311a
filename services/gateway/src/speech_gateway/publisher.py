"""Store utterances on Kafka: make the event, encode it, hand it to the producer.

Only here does an utterance become a record, and a delivery error an answer to a client. `__main__`
builds it, and the driver calls it.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable
from dataclasses import dataclass, field

from speech_lib.errors import DeliveryError
from speech_lib.events import AudioInput, AudioInputEvent
from speech_lib.kafka import headers
from speech_lib.kafka.producer import RecordProducer
from speech_lib.kafka.records import Record, Stored
from speech_lib.kafka.registry import EventSerializer
from speech_lib.telemetry.spans import Message, NoSpans, Sending, SpanSink

from speech_gateway import wav
from speech_gateway.errors import Failure, NotStored
from speech_gateway.lanes import Lanes
from speech_gateway.utterance import Context, Receipt, Utterance

SOURCE_SERVICE = "gateway"
CLIENT_ID = "speech-gateway"


@dataclass(frozen=True, slots=True)
class Publisher:
    """Stores utterances as `AudioInputEvent`s on one topic."""

    producer: RecordProducer
    serializer: EventSerializer[AudioInputEvent]
    topic: str
    spans: SpanSink = field(default_factory=NoSpans)
    lanes: Lanes = field(default_factory=Lanes)

    def publish(self, context: Context, utterance: Utterance) -> Awaitable[Receipt]:
        """Encode `utterance` and hand it over now; the awaitable holds none of its bytes.

        Raises:
            NotStored: When awaited: the utterance is not stored, or not known to be.
        """
        event = AudioInputEvent.new(
            correlation_id=context.correlation_id,
            source_service=SOURCE_SERVICE,
            payload=AudioInput(
                audio_bytes=utterance.wav,
                sample_rate_hz=wav.SAMPLE_RATE_HZ,
                language_hint=context.language_hint,
            ),
        )
        trace = context.trace.child()
        record = self._record(context, utterance, event, trace.header())
        sending = Sending(
            self.spans,
            lambda: context.nanoseconds(time.monotonic()),
            Message.of(record),
            CLIENT_ID,
            trace,
            parent=context.trace,
        )
        return self._receipt(event.event_id, self.producer.hand_over(record), sending)

    def _record(
        self, context: Context, utterance: Utterance, event: AudioInputEvent, traceparent: str
    ) -> Record:
        key = context.correlation_id.encode()
        return Record(
            topic=self.topic,
            key=key,
            value=self.serializer.encode(event),
            headers=headers.for_audio_ingress(
                event,
                traceparent=traceparent,
                ended_by=utterance.ended_by,
                handshake_ms=_milliseconds(context, utterance.handshake_at),
                first_audio_ms=_milliseconds(context, utterance.first_audio_at),
                ended_ms=_milliseconds(context, utterance.ended_at),
                source=context.source,
                client_ref=context.client_ref,
            ),
            partition=self.lanes.partition(
                context.source,
                key,
                utterance,
                partitions=self.producer.partitions(self.topic),
            ),
        )

    @staticmethod
    async def _receipt(event_id: str, answer: Awaitable[Stored], sending: Sending) -> Receipt:
        try:
            with sending:
                stored = sending.stored = await answer
        except DeliveryError as error:
            failure = Failure.REJECTED_BY_BROKER if error.refused else Failure.BROKER_UNAVAILABLE
            raise NotStored(failure, error.stored, error.reason) from None
        return Receipt(event_id, stored.topic, stored.partition, stored.offset)


def _milliseconds(context: Context, at: float) -> int:
    """Return a time on the session's clock as milliseconds since the epoch."""
    return round((context.epoch + at) * 1000)
