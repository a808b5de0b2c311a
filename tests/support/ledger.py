"""Judge a history of utterances against the log, as Jepsen judges a database.

Every attempt to have an utterance stored is an operation: it is accepted, refused, or nobody knows.
At the end the topic is read back whole, and `audit` compares. Used by the tests under faults and by
whoever injures a pipeline on purpose. Pure: operations and records in, findings out.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from enum import Enum
from typing import Any

from speech_lib.events import AudioInputEvent
from speech_lib.events.codec import decode
from speech_lib.events.schemas import schema_text
from speech_lib.kafka import headers
from speech_lib.kafka.records import ReceivedRecord
from speech_tools.protocol.client import Frame

WAV_HEADER_BYTES = 44
_ENDED_BY_DONE = "done"


class Verdict(Enum):
    """What the client knows in the end."""

    ACCEPTED = "accepted"
    """There is a receipt."""
    FAILED = "failed"
    """Surely not stored: refused before or after it was sent."""
    UNKNOWN = "unknown"
    """The gateway says that it may be stored."""
    UNANSWERED = "unanswered"
    """The connection ended without a final message; it may be stored."""


@dataclass(frozen=True, slots=True)
class Operation:
    """One attempt to have one utterance stored.

    Attributes:
        utterance: Which one; an attempt that failed may be followed by another of the same.
        pcm: The samples that were to be sent.
        opened: Whether there was a WebSocket; otherwise it was refused, or nobody was there.
        correlation_id: As greeted; nothing where there was no greeting.
        final: The final message, where there was one.
        began: When it was begun, in seconds of a clock that only goes forward.
        ended: When the client knew what it knows.
    """

    utterance: int
    pcm: bytes = field(repr=False)
    opened: bool
    correlation_id: str | None
    final: Frame | None
    began: float
    ended: float

    @property
    def verdict(self) -> Verdict:
        """What the client knows."""
        if self.final is None:
            return Verdict.UNANSWERED if self.opened else Verdict.FAILED
        if self.final["status"] == "accepted":
            return Verdict.ACCEPTED
        return Verdict.FAILED if self.final["stored"] == "no" else Verdict.UNKNOWN

    @property
    def seconds(self) -> float:
        """How long the client waited."""
        return self.ended - self.began


@dataclass(frozen=True, slots=True)
class Entry:
    """One record of the topic.

    Attributes:
        correlation_id: Of its key.
        event_id: Of the event.
        place: Topic, partition and offset.
        ended_by: How the utterance ended.
        pcm: The samples of the WAV.
    """

    correlation_id: str
    event_id: str
    place: tuple[str, int, int]
    ended_by: str
    pcm: bytes = field(repr=False)

    @classmethod
    def of(cls, record: ReceivedRecord) -> "Entry":
        """Read a record that was written with the schema of this version."""
        event = decode(AudioInputEvent, record.value, schema_text(AudioInputEvent.event_type))
        return cls(
            correlation_id=record.key.decode(),
            event_id=event.event_id,
            place=(record.topic, record.partition, record.offset),
            ended_by=record.headers[headers.ENDED_BY],
            pcm=event.payload.audio_bytes[WAV_HEADER_BYTES:],
        )


@dataclass(frozen=True, slots=True)
class Findings:
    """What is wrong, by correlation id or else by number; empty where all promises were kept.

    Attributes:
        lost: Accepted, and not in the log.
        twice: In the log more than once, by their id or by their samples.
        denied: In the log, although the client was told that it is not.
        unanswered: The connection was opened, and ended without a final message.
        misplaced: The receipt names another event, partition or offset than the record's.
        altered: The samples in the log, or in the receipt, are not those that were sent.
        strange: In the log, and nobody's.
    """

    lost: tuple[str, ...] = ()
    twice: tuple[str, ...] = ()
    denied: tuple[str, ...] = ()
    unanswered: tuple[str, ...] = ()
    misplaced: tuple[str, ...] = ()
    altered: tuple[str, ...] = ()
    strange: tuple[str, ...] = ()


def audit(operations: Sequence[Operation], entries: Sequence[Entry]) -> Findings:
    """Compare what clients were told with what the topic holds.

    Args:
        operations: Every attempt there was; the samples of two utterances are never the same.
        entries: The whole topic.
    """
    greeted = {each.correlation_id: each for each in operations if each.correlation_id}
    stored = {each.correlation_id: each for each in reversed(entries)}
    of = {verdict: _ids(operations, verdict) for verdict in Verdict}
    both = [(greeted[name], stored[name]) for name in greeted if name in stored]
    return Findings(
        lost=_sorted(of[Verdict.ACCEPTED] - stored.keys()),
        twice=_sorted(_repeated(entries)),
        denied=_sorted(of[Verdict.FAILED] & stored.keys()),
        unanswered=_sorted(of[Verdict.UNANSWERED]),
        misplaced=_sorted(e.correlation_id for op, e in both if _is_misplaced(op, e)),
        altered=_sorted(e.correlation_id for op, e in both if _is_altered(op, e)),
        strange=_sorted(stored.keys() - greeted.keys()),
    )


def _sorted(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(names))


def _ids(operations: Iterable[Operation], verdict: Verdict) -> set[str]:
    return {
        each.correlation_id or f"utterance {each.utterance}"
        for each in operations
        if each.verdict is verdict
    }


def _repeated(entries: Sequence[Entry]) -> set[str]:
    """Return the ids of those whose id, or whose samples, are in the log more than once."""
    ids = Counter(each.correlation_id for each in entries)
    samples = Counter(hashlib.sha256(each.pcm).digest() for each in entries)
    return {
        each.correlation_id
        for each in entries
        if ids[each.correlation_id] > 1 or samples[hashlib.sha256(each.pcm).digest()] > 1
    }


def _is_misplaced(operation: Operation, entry: Entry) -> bool:
    if operation.final is None or operation.verdict is not Verdict.ACCEPTED:
        return False
    names = ("event_id", "topic", "partition", "offset")
    return tuple(operation.final[name] for name in names) != (entry.event_id, *entry.place)


def _is_altered(operation: Operation, entry: Entry) -> bool:
    """Compare the samples: all of them where the client has ended it, else the first of them."""
    if entry.ended_by == _ENDED_BY_DONE and entry.pcm != operation.pcm:
        return True
    if not operation.pcm.startswith(entry.pcm):
        return True
    return operation.verdict is Verdict.ACCEPTED and _receipt(operation.final or {}) != (
        entry.ended_by,
        len(entry.pcm),
        hashlib.sha256(entry.pcm).hexdigest(),
    )


def _receipt(final: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(final[name] for name in ("ended_by", "audio_bytes", "sha256"))


@dataclass(frozen=True, slots=True)
class Figures:
    """How it went, in numbers.

    Attributes:
        utterances: How many there were to store.
        accepted: Operations with a receipt.
        failed: Operations that surely stored nothing; most were tried again.
        unknown: Operations of which the gateway did not know.
        unanswered: Operations that ended without a final message.
        unknown_in_log: How many of the last two are in the log all the same.
        longest_seconds: The longest that a client waited, from its handshake to its answer.
    """

    utterances: int
    accepted: int
    failed: int
    unknown: int
    unanswered: int
    unknown_in_log: int
    longest_seconds: float

    def __str__(self) -> str:
        """Return one line."""
        return ", ".join(
            f"{each.name.replace('_', ' ')} {getattr(self, each.name):g}" for each in fields(self)
        )


def figures(operations: Sequence[Operation], entries: Iterable[Entry]) -> Figures:
    """Count."""
    verdicts = Counter(each.verdict for each in operations)
    in_log = {each.correlation_id for each in entries}
    unsure = _ids(operations, Verdict.UNKNOWN) | _ids(operations, Verdict.UNANSWERED)
    return Figures(
        utterances=len({each.utterance for each in operations}),
        accepted=verdicts[Verdict.ACCEPTED],
        failed=verdicts[Verdict.FAILED],
        unknown=verdicts[Verdict.UNKNOWN],
        unanswered=verdicts[Verdict.UNANSWERED],
        unknown_in_log=len(unsure & in_log),
        longest_seconds=round(max((each.seconds for each in operations), default=0.0), 2),
    )
