"""What the session, its driver and the adapters share: an utterance, its receipt, and its text.

Pure data. The session makes an `Utterance`, the driver adds the `Context` of its connection, and a
`Store` answers with a `Receipt`: `publisher.Publisher` on Kafka, `testing.FakeStore` in tests.
`results.Results` brings the `Text` of those who want it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Protocol

from speech_lib.telemetry.context import TraceContext

from speech_gateway.errors import NoText


@dataclass(frozen=True, slots=True)
class Wanted:
    """What an acceptable handshake asks for.

    Attributes:
        language_hint: A BCP 47 tag, where the client gave one.
        results: Whether it wants the text on the same connection.
        client_ref: The client's own name for what it says.
        discards: Whether a connection that breaks leaves nothing stored.
    """

    language_hint: str | None = None
    results: bool = False
    client_ref: str | None = None
    discards: bool = False


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
        client_ref: The client's own name for what it says, where it gave one; in no log.
    """

    correlation_id: str
    trace: TraceContext
    language_hint: str | None
    epoch: float
    parent: TraceContext | None = None
    source: str = ""
    client_ref: str | None = None

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


@dataclass(frozen=True, slots=True)
class Text:
    """The text of an utterance, and where its record is.

    Attributes:
        text: The words, empty where nothing was said.
        language: The BCP 47 tag of the model's language.
        confidence: 0 to 1; 0 where the engine has none.
        event_id: The id of the text's event.
        topic: The text's topic.
        partition: Its partition there.
        offset: Its offset there.
    """

    text: str = field(repr=False)
    language: str
    confidence: float
    event_id: str
    topic: str
    partition: int
    offset: int


Answer = Text | NoText
"""What became of an utterance that was stored."""

Tell = Callable[[Answer], None]


class Answers(Protocol):
    """What brings the texts of utterances that are stored (`results.Results`)."""

    def expect(self, correlation_id: str, tell: Tell) -> Callable[[], None]:
        """Tell what becomes of an utterance, once; return what forgets it."""


class Store(Protocol):
    """What stores utterances."""

    def publish(self, context: Context, utterance: Utterance) -> Awaitable[Receipt]:
        """Hand `utterance` over now; the awaitable must not keep it alive.

        Raises:
            NotStored: When awaited: the utterance is not stored, or not known to be.
        """
