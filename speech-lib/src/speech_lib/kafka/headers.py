"""The headers of the records on each topic, in one place.

Writers build them here, and readers use the names. The headers tell a trace of an utterance and a
reader of dead letters what they need without decoding the value. Times are milliseconds since the
epoch by the writer's clock.
"""

import re
import time

from speech_lib.events import AnyEvent
from speech_lib.kafka.records import ReceivedRecord

CORRELATION_ID = "correlation_id"
TRACEPARENT = "traceparent"
EVENT_TYPE = "event_type"

ENDED_BY = "ended_by"
HANDSHAKE_MS = "handshake_ms"
FIRST_AUDIO_MS = "first_audio_ms"
ENDED_MS = "ended_ms"
SOURCE = "source"
CLIENT_REF = "client_ref"

INPUT_EVENT_ID = "input_event_id"
INPUT_PARTITION = "input_partition"
INPUT_OFFSET = "input_offset"
FETCHED_MS = "fetched_ms"
RECOGNISED_MS = "recognised_ms"

DLQ_REASON = "dlq_reason"
DLQ_PARTITION = "dlq_partition"
DLQ_OFFSET = "dlq_offset"
DLQ_LAST_OFFSET = "dlq_last_offset"
DLQ_OMITTED = "dlq_omitted"

SOURCE_BYTES = 8
"""Of which a source is the hexadecimal digits."""
_SOURCE = re.compile(f"[0-9a-f]{{{2 * SOURCE_BYTES}}}")
_CLIENT_REF = re.compile(r"[A-Za-z0-9._~-]{1,64}")


def now_ms() -> int:
    """Return the milliseconds since the epoch."""
    return time.time_ns() // 1_000_000


def _common(event: AnyEvent, traceparent: str) -> dict[str, str]:
    return {
        CORRELATION_ID: event.correlation_id,
        TRACEPARENT: traceparent,
        EVENT_TYPE: event.event_type,
    }


def for_audio_ingress(
    event: AnyEvent,
    *,
    traceparent: str,
    ended_by: str,
    handshake_ms: int,
    first_audio_ms: int,
    ended_ms: int,
    source: str,
    client_ref: str | None = None,
) -> dict[str, str]:
    """Return the headers of an utterance.

    Args:
        event: What the record's value holds.
        traceparent: Of the gateway's span.
        ended_by: How the utterance ended.
        handshake_ms: When the client came.
        first_audio_ms: When its first audio came.
        ended_ms: When the utterance ended.
        source: Stands for the address of its client; see `source_of`.
        client_ref: The client's own name for what it says; see `client_ref_of`.
    """
    return {
        **_common(event, traceparent),
        ENDED_BY: ended_by,
        HANDSHAKE_MS: str(handshake_ms),
        FIRST_AUDIO_MS: str(first_audio_ms),
        ENDED_MS: str(ended_ms),
        SOURCE: source,
        **({CLIENT_REF: client_ref} if client_ref else {}),
    }


def for_asr_text(
    event: AnyEvent,
    *,
    traceparent: str,
    input_event_id: str,
    fetched_ms: int,
    recognised_ms: int,
    utterance: ReceivedRecord | None = None,
) -> dict[str, str]:
    """Return the headers of a recognised text.

    Args:
        event: What the record's value holds.
        traceparent: Of the recogniser's span.
        input_event_id: The utterance's `event_id`.
        fetched_ms: When the utterance was read from its topic.
        recognised_ms: When its text was known.
        utterance: Its record. The text then tells where that lies, and passes its `client_ref` on.
    """
    return {
        **_common(event, traceparent),
        INPUT_EVENT_ID: input_event_id,
        **(_of_input(utterance) if utterance else {}),
        FETCHED_MS: str(fetched_ms),
        RECOGNISED_MS: str(recognised_ms),
    }


def _of_input(utterance: ReceivedRecord) -> dict[str, str]:
    name = client_ref_of(utterance)
    return {
        INPUT_PARTITION: str(utterance.partition),
        INPUT_OFFSET: str(utterance.offset),
        **({CLIENT_REF: name} if name else {}),
    }


def source_of(record: ReceivedRecord) -> str:
    """Return whose utterance a record is, for fair shares among all; it tells nothing else.

    One source for all records that do not say, or say something else than a gateway would.
    """
    source = record.headers.get(SOURCE, "")
    return source if _SOURCE.fullmatch(source) else ""


def is_client_ref(text: str) -> bool:
    """Return whether a client may name an utterance so: 1 to 64 of `A-Z a-z 0-9 . _ ~ -`."""
    return _CLIENT_REF.fullmatch(text) is not None


def client_ref_of(record: ReceivedRecord) -> str | None:
    """Return the client's own name for an utterance; None where there is none that it may have.

    It is the same on every attempt to say the same thing. Nobody checks that it is unique.
    """
    name = record.headers.get(CLIENT_REF, "")
    return name if is_client_ref(name) else None


def for_dead_letter(record: ReceivedRecord, *, reason: str) -> dict[str, str]:
    """Return the headers of a record that cannot be processed: its own, why, and where it lay."""
    return {**record.headers, **_of_dead_letter(record, reason)}


def for_empty_dead_letter(
    record: ReceivedRecord, *, reason: str, omitted: str = "too_large"
) -> dict[str, str]:
    """Return the headers of a dead letter that is kept without its content: nothing of its own.

    Args:
        record: What cannot be processed.
        reason: Why it is a dead letter.
        omitted: Why its content is not kept: `too_large`, `refused` by the broker, or `unreadable`.
    """
    return {**_of_dead_letter(record, reason), DLQ_OMITTED: omitted}


def _of_dead_letter(record: ReceivedRecord, reason: str) -> dict[str, str]:
    first = record.damaged_from
    return {
        DLQ_REASON: reason,
        DLQ_PARTITION: str(record.partition),
        DLQ_OFFSET: str(record.offset if first is None else first),
        **({DLQ_LAST_OFFSET: str(record.offset)} if first not in {None, record.offset} else {}),
    }
