"""Find utterances on the topics of one pipeline, and show their traces.

Used by `trace.command`, which turns options into calls, and exceptions into exit codes.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from speech_lib.events import TextRecognizedEvent
from speech_lib.kafka import headers
from speech_lib.kafka.records import ReceivedRecord
from speech_lib.kafka.registry import EventDeserializer, SchemaRegistry
from speech_lib.kafka.settings import KafkaSettings

from speech_tools.terminal import json_text
from speech_tools.topics import Topics
from speech_tools.trace import follow as trace_follow
from speech_tools.trace import group as trace_group
from speech_tools.trace import newest as trace_newest
from speech_tools.trace import search, tracing
from speech_tools.trace.reader import TopicReader
from speech_tools.trace.screen import Screen
from speech_tools.trace.tracing import Decode, Trace

SEARCH_WAIT_MS, FOLLOW_WAIT_MS = 10, 500
"""How long the broker may hold an answer back (see `TopicReader`)."""


@dataclass(frozen=True, slots=True)
class Where:
    """Where to look.

    Attributes:
        kafka: How to reach the brokers.
        registry_url: Where the schema of the texts is kept.
        topics: Which topic means what.
        group_id: The recognisers' consumer group.
    """

    kafka: KafkaSettings
    registry_url: str = field(repr=False)
    topics: Topics
    group_id: str


@contextmanager
def tracer(where: Where, *, as_json: bool, follows: bool) -> Iterator["Tracer"]:
    """Yield a tracer. Its connections are closed at the end."""
    registry = SchemaRegistry(where.registry_url)
    reader = TopicReader(
        where.kafka,
        group_id=where.group_id,
        keep_values=frozenset({where.topics.text}),
        wait_ms=FOLLOW_WAIT_MS if follows else SEARCH_WAIT_MS,
    )
    try:
        decode = EventDeserializer(registry, TextRecognizedEvent).decode
        yield Tracer(where, reader, decode, None if as_json else Screen())
    finally:
        reader.close()
        registry.close()


class Tracer:
    """Finds utterances and shows them. Without a screen each is one JSON object on a line.

    All methods raise what `search.find` raises, and what decoding a text raises.
    """

    def __init__(
        self, where: Where, reader: TopicReader, decode: Decode, screen: Screen | None
    ) -> None:
        self._where = where
        self._reader = reader
        self._decode = decode
        self._screen = screen

    def one(self, correlation_id: str, since_ms: int | None) -> Trace:
        """Show every hop of one utterance, and return its trace."""
        finding = search.find(self._reader, self._where.topics, correlation_id, since_ms)
        recogniser = self._recogniser(finding, {correlation_id: finding.records})
        found = self._trace(correlation_id, finding.records, recogniser)
        self._show_whole(found)
        return found

    def last(self, count: int) -> list[Trace]:
        """Show the newest utterances, the newest last, and return their traces.

        A single one is shown with every hop.
        """
        finding = trace_newest.newest(self._reader, self._where.topics, count)
        utterances = _by_id(finding.records)
        recogniser = self._recogniser(finding, utterances)
        found = [self._trace(*each, recogniser) for each in utterances.items()]
        if count == 1 and found:
            self._show_whole(found[0])
        elif found:
            self._show_lines(found)
        return found

    def follow(self) -> None:
        """Show each utterance whenever a record of it is stored, until interrupted."""
        if self._screen:
            self._screen.head()
        for correlation_id, records in trace_follow.follow(self._reader, self._where.topics):
            found = self._trace(correlation_id, records)
            if self._screen:
                self._screen.line(found)
            else:
                _print_json(found)

    def _trace(
        self,
        correlation_id: str,
        records: Sequence[ReceivedRecord],
        recogniser: tracing.Recogniser | None = None,
    ) -> Trace:
        return tracing.trace(correlation_id, records, self._where.topics, self._decode, recogniser)

    def _recogniser(
        self, finding: search.Finding, utterances: dict[str, Sequence[ReceivedRecord]]
    ) -> tracing.Recogniser | None:
        """Return how far the recogniser is, where an utterance waits for it."""
        topics, group_id = self._where.topics, self._where.group_id
        found = [{record.topic for record in records} for records in utterances.values()]
        if not any(topics.audio in each and topics.text not in each for each in found):
            return None
        members = trace_group.members(self._where.kafka, group_id)
        return tracing.Recogniser(group_id, finding.next_offsets, members)

    def _show_whole(self, found: Trace) -> None:
        if self._screen:
            self._screen.whole(found)
        else:
            _print_json(found)

    def _show_lines(self, found: Sequence[Trace]) -> None:
        if self._screen:
            self._screen.head()
            self._screen.lines(found)
        else:
            for each in found:
                _print_json(each)


def _print_json(found: Trace) -> None:
    print(json_text(found.to_json()), flush=True)


def _by_id(records: Sequence[ReceivedRecord]) -> dict[str, Sequence[ReceivedRecord]]:
    """Put the records of each utterance together, in the order of the first of each."""
    utterances: dict[str, list[ReceivedRecord]] = {}
    for record in records:
        utterances.setdefault(record.headers[headers.CORRELATION_ID], []).append(record)
    return dict(utterances)
