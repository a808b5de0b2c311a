"""What the session, its driver and the publisher share: an utterance, its facts, and its receipt.

Pure data. The session makes an `Utterance`, the driver adds the `Context` of its connection, and a
`Store` answers with a `Receipt`: `publisher.Publisher` on Kafka, `testing.FakeStore` in tests.
"""

from __future__ import annotations

from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Protocol

from speech_lib.telemetry.context import TraceContext


@dataclass(frozen=True, slots=True)
class Context:
    """What an utterance carries from its handshake to its record.

    Attributes:
        correlation_id: The server's own, a UUID4.
        trace: The session's span, in the client's W3C trace or in a new one.
        language_hint: A BCP 47 tag, where the client gave one.
        epoch: What to add to the session's clock, `time.monotonic`, for seconds since the epoch.
        parent: The client's span, where it sent one.
        source: Stands for the client's address (`admission.Sources`); in no log.
    """

    correlation_id: str
    trace: TraceContext
    language_hint: str | None
    epoch: float
    parent: TraceContext | None = None
    source: str = ""

    def nanoseconds(self, at: float) -> int:
        """Return a time on the session's clock as nanoseconds since the epoch."""
        return round((self.epoch + at) * 1e9)


@dataclass(frozen=True, slots=True)
class Utterance:
    """A whole WAV file to store, and its times in seconds on the session's clock."""

    wav: bytes
    ended_by: str
    handshake_at: float
    first_audio_at: float
    ended_at: float


@dataclass(frozen=True, slots=True)
class Receipt:
    """Where the broker stored the utterance."""

    event_id: str
    topic: str
    partition: int
    offset: int


class Store(Protocol):
    """What stores utterances."""

    def publish(self, context: Context, utterance: Utterance) -> Awaitable[Receipt]:
        """Hand `utterance` over now; the awaitable must not keep it alive.

        Raises:
            NotStored: When awaited: the utterance is not stored, or not known to be.
        """
