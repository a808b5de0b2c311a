"""Bring the text of an utterance back to the session that waits for it.

Every replica reads the topics of texts and of dead letters from their ends on, and keeps nothing.
`__main__` builds and runs it with `RESULTS=on`. The server says whose text is expected, and is told
on the event loop. The reading is on a thread, because it blocks.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Container
from contextlib import closing, suppress
from dataclasses import dataclass, field
from typing import Protocol

import structlog
from speech_lib.errors import (
    BrokerUnavailable,
    EventError,
    RegistryUnavailable,
    SchemaNotFound,
    SchemaRefused,
)
from speech_lib.events import TextRecognizedEvent
from speech_lib.kafka.records import Partition, ReceivedRecord

from speech_gateway.errors import NoText
from speech_gateway.utterance import Answer, Tell, Text

CLIENT_ID = "speech-gateway-results"
_TURN_SECONDS = 0.2
_AGAIN_SECONDS = 1.0

log = structlog.get_logger()

Report = Callable[[bool, str], None]
"""Takes whether texts can be read, and the reason if not."""


class Tail(Protocol):
    """What reads the topics (`speech_lib.kafka.tail.TopicTail`)."""

    positions: dict[Partition, int]

    def poll(self, timeout: float, wanted: Container[bytes]) -> list[ReceivedRecord]:
        """Return the next records whose key is wanted."""

    def close(self) -> None:
        """Close the connections."""


OpenTail = Callable[[dict[Partition, int]], Tail]
"""Opens a reader that goes on at these positions; raises `BrokerUnavailable` where it cannot."""


class Decoder(Protocol):
    """What reads a text's value (`speech_lib.kafka.registry.EventDeserializer`)."""

    def decode(self, value: bytes) -> TextRecognizedEvent:
        """Return the event, or raise one of the errors that the library names."""


@dataclass
class Results:
    """Sessions that want their text, and the reader that brings it.

    Args:
        open_tail: Opens the reader of both topics.
        decoder: Reads the values of texts.
        dead_letters: The topic of those utterances that have no text.
        report: Called on the event loop as the reading begins to work, or fails.

    Attributes:
        reading: Set once it reads for the first time.
    """

    open_tail: OpenTail
    decoder: Decoder
    dead_letters: str
    report: Report
    reading: asyncio.Event = field(default_factory=asyncio.Event)
    _expected: dict[bytes, Tell] = field(default_factory=dict)
    """By correlation id. The loop adds and takes away, the thread looks and takes away."""
    _undecoded: dict[bytes, ReceivedRecord] = field(default_factory=dict)
    """Texts that wait for the registry."""

    def expect(self, correlation_id: str, tell: Tell) -> Callable[[], None]:
        """Tell what becomes of an utterance, once; return what forgets it.

        Call it before the utterance is handed to the broker. `tell` is called on the event loop.
        """
        key = correlation_id.encode()
        self._expected[key] = tell
        return lambda: self._expected.pop(key, None) and None

    async def run(self) -> None:
        """Read until cancelled."""
        stop, loop = threading.Event(), asyncio.get_running_loop()
        try:
            await asyncio.to_thread(self._read, loop, stop)
        finally:
            stop.set()  # the thread ends after its turn, and the loop's end waits for it

    def _tell_state(self, problem: str) -> None:
        self.report(not problem, problem)
        if not problem:
            self.reading.set()

    # On the thread

    def _read(self, loop: asyncio.AbstractEventLoop, stop: threading.Event) -> None:
        positions: dict[Partition, int] = {}
        while not stop.is_set():
            try:
                with closing(self.open_tail(positions)) as tail:
                    positions = tail.positions
                    loop.call_soon_threadsafe(self._tell_state, "")
                    while not stop.is_set():
                        self._take(tail.poll(_TURN_SECONDS, self._expected), loop)
            except BrokerUnavailable as error:
                loop.call_soon_threadsafe(self._tell_state, error.reason)
            except Exception:
                log.exception("reading results failed")
                loop.call_soon_threadsafe(self._tell_state, "internal_error")
            stop.wait(_AGAIN_SECONDS)

    def _take(self, records: list[ReceivedRecord], loop: asyncio.AbstractEventLoop) -> None:
        waiting, self._undecoded = self._undecoded, {}
        for record in (*waiting.values(), *records):
            # Looked up again, because an earlier record may have answered, or the client has gone.
            if record.key not in self._expected:
                continue
            with suppress(_Unreadable):
                answer = self._answer(record)
                if tell := self._expected.pop(record.key, None):
                    loop.call_soon_threadsafe(tell, answer)

    def _answer(self, record: ReceivedRecord) -> Answer:
        """Return what a record says.

        Raises:
            _Unreadable: It is no text of this utterance, or its schema cannot be had now.
        """
        if record.topic == self.dead_letters:
            return NoText.NOT_RECOGNIZED
        try:
            event = self.decoder.decode(record.value)
        except (RegistryUnavailable, SchemaRefused):
            self._undecoded[record.key] = record
            raise _Unreadable from None
        except (EventError, SchemaNotFound):
            raise _Unreadable from None
        if event.correlation_id.encode() != record.key:
            raise _Unreadable
        text = event.payload
        return Text(
            text.text,
            text.language,
            text.confidence,
            event.event_id,
            record.topic,
            record.partition,
            record.offset,
        )


class _Unreadable(Exception):
    """A record answers nobody now."""
