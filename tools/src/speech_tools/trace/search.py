"""Find the records of utterances without reading the topics from their beginning.

Used by `trace.tracer`. A correlation id tells no time, but it tells the partition: all producers of
the pipeline use it as the key, and leave the partition to librdkafka. The search reads the small
topics first, one partition of each, the newest records first. They tell the place of the utterance
in the large topic, or those of older writers its time. An utterance without text or dead letter
still waits for the recogniser, so only what that has not done is read, backwards from the end. At
last the search looks at other partitions, and not far back, for records by other producers. It
reads nothing after the ends that were there at the start, so it ends however busy the topics are.
"""

import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from speech_lib.kafka import headers
from speech_lib.kafka.records import Partition, ReceivedRecord

from speech_tools.topics import Topics
from speech_tools.trace.reader import Span, TopicReader, Wanted
from speech_tools.trace.tracing import told_number

SLACK_MS = 60_000
"""How far the clocks of gateways and recognisers may differ."""
AROUND_MS = 5_000
"""How long an utterance lies before it is fetched where the recogniser has nothing else to do."""
BACK_MS = (AROUND_MS, 60_000, 10 * 60_000, 60 * 60_000)
"""How long before it was fetched an utterance is looked for, step by step."""
SMALL_BLOCK = 500
LARGE_BLOCK = 16
FOREIGN = 20
"""How many of the newest utterances of a partition are looked at that the key does not point to."""
FOREIGN_OUTCOMES = 100
"""The same of texts and dead letters, which are small."""
GROWTH = 4
_TOLD_PLACES = (
    (headers.DLQ_PARTITION, headers.DLQ_OFFSET),
    (headers.INPUT_PARTITION, headers.INPUT_OFFSET),
)

Found = list[ReceivedRecord]


@dataclass(frozen=True, slots=True)
class Finding:
    """What a search found.

    Attributes:
        records: In the order of each partition.
        next_offsets: Where the recogniser's group goes on in each partition of the utterances, as
            it was before anything was looked for; empty where that may not be known.
    """

    records: tuple[ReceivedRecord, ...]
    next_offsets: Mapping[int, int]


def likely_partition(key: str, partitions: int) -> int:
    """Return where librdkafka's default partitioner (consistent_random) puts a key."""
    return zlib.crc32(key.encode()) % partitions


def backwards(span: Span, block: int) -> Iterator[Span]:
    """Yield a span from its end to its beginning, in blocks that grow."""
    end = span.end
    while end > span.begin:
        begin = max(span.begin, end - block)
        yield replace(span, begin=begin, end=end)
        end, block = begin, block * GROWTH


def find(
    reader: TopicReader, topics: Topics, correlation_id: str, since_ms: int | None = None
) -> Finding:
    """Return the records with this correlation id. Blocks.

    Args:
        reader: Where from.
        topics: Where to look.
        correlation_id: What the records' header of that name says.
        since_ms: What is older is left out.

    Raises:
        BrokerUnavailable: The broker cannot be reached, or fails on the way.
        TopicMissing: One of the topics does not exist.
    """
    return _Search(reader, topics, correlation_id, since_ms).run()


class _Search:
    """The search for one utterance; `_unread` is what is left of partitions begun at their end."""

    def __init__(
        self, reader: TopicReader, topics: Topics, correlation_id: str, since_ms: int | None
    ) -> None:
        self._reader = reader
        self._topics = topics
        self._since_ms = since_ms
        self._about = about({correlation_id})
        self._counts = reader.partitions([topics.audio, topics.text, topics.dead_letter])
        self._likely = {
            topic: likely_partition(correlation_id, count) for topic, count in self._counts.items()
        }
        self._unread: dict[Partition, Span] = {}
        spans = reader.spans(topics.audio, self._counts[topics.audio])
        # Asked for before the texts are read: what is committed by now has its outcome there.
        self._next = reader.next_offsets(spans)
        self._audio = [self._recent(span) for span in spans]

    def run(self) -> Finding:
        outcome = self._newest(self._topics.text) or self._newest(self._topics.dead_letter)
        audio = self._utterance(outcome)
        if not outcome and not audio:
            outcome = self._outcome_elsewhere()
        if not audio:
            audio = self._utterance_elsewhere(outcome)
        if not outcome and not audio:
            audio = self._of_empty_dead_letter()
        outcome += self._further(audio)
        if audio and not outcome:
            outcome = self._empty_dead_letter(audio[0])
        return Finding((*audio, *outcome), self._next)

    def _newest(self, topic: str) -> Found:
        """Return what is about the utterance in the newest block that has something."""
        span = self._recent(self._reader.whole(topic, self._likely[topic]))
        for block in backwards(span, SMALL_BLOCK):
            self._unread[topic, span.partition] = replace(span, end=block.begin)
            if found := self._read(block):
                return found
        return []

    def _utterance(self, outcome: Found) -> Found:
        """Return the utterance from the partition of its key."""
        span = self._audio[self._likely[self._topics.audio]]
        return self._first_in(self._places(span, outcome))

    def _places(self, span: Span, outcome: Found) -> Iterator[Span]:
        """Yield where to look in a partition of utterances, the likeliest place first."""
        if not outcome:
            # What the recogniser has done has its outcome, so that only the rest is left.
            begin = max(span.begin, self._next.get(span.partition, span.begin))
            yield from backwards(replace(span, begin=begin), LARGE_BLOCK)
            return
        if place := _told_place(outcome[0], self._audio):
            yield place  # as its writer says; if it is not there, by its time
        yield from self._around(span, _fetched_ms(outcome[0]))

    def _around(self, span: Span, fetched_ms: int) -> Iterator[Span]:
        """Yield what was stored when a recogniser fetched it, then what was before and after."""
        newest = self._reader.offset_at(span, fetched_ms + AROUND_MS)
        if newest is None:
            yield span
            return
        end = newest
        for back_ms in BACK_MS:
            begin = self._reader.offset_at(span, fetched_ms - back_ms) or span.begin
            yield replace(span, begin=begin, end=end)
            end = begin
        yield replace(span, end=end)
        yield replace(span, begin=newest)

    def _outcome_elsewhere(self) -> Found:
        """Return what other partitions of the small topics have, in their newest records."""
        return self._read(
            *(
                self._newest_of(self._reader.whole(topic, partition), FOREIGN_OUTCOMES)
                for topic in (self._topics.text, self._topics.dead_letter)
                for partition in range(self._counts[topic])
                if partition != self._likely[topic]
            )
        )

    def _utterance_elsewhere(self, outcome: Found) -> Found:
        """Return the utterance from another partition: about its time, or before the recogniser."""
        others = [
            span for span in self._audio if span.partition != self._likely[self._topics.audio]
        ]
        if not outcome:
            return self._read(*(self._not_done(span) for span in others))
        return self._first_in(
            place for span in others for place in self._near(span, _fetched_ms(outcome[0]))
        )

    def _near(self, span: Span, fetched_ms: int) -> Iterator[Span]:
        begin = self._reader.offset_at(span, fetched_ms - BACK_MS[-1])
        end = self._reader.offset_at(span, fetched_ms + SLACK_MS)
        yield span if begin is None or end is None else replace(span, begin=begin, end=end)

    def _further(self, audio: Found) -> Found:
        """Return earlier outcomes, as far back as the utterance: results may be stored again."""
        stored_ms = audio[0].timestamp_ms if audio else None
        spans = [
            self._unread.get((topic, partition), self._reader.whole(topic, partition))
            for topic, partition in self._likely.items()
            if topic != self._topics.audio
        ]
        return self._read(*(self._since(span, stored_ms) for span in spans))

    def _of_empty_dead_letter(self) -> Found:
        """Return the utterance, if it is one whose dead letter kept nothing but its place."""
        topic = self._topics.dead_letter
        spans = self._reader.spans(topic, self._counts[topic])
        letters = self._reader.read([self._recent(span) for span in spans], _names_nobody)
        places = (_told_place(letter, self._audio) for letter in letters)
        return self._first_in(filter(None, places))

    def _empty_dead_letter(self, audio: ReceivedRecord) -> Found:
        """Return the dead letter that was too large to keep more of it than where it lay."""
        if audio.offset >= self._next.get(audio.partition, audio.offset):
            return []  # nobody has given it up yet
        topic = self._topics.dead_letter
        spans = self._reader.spans(topic, self._counts[topic])
        return self._reader.read(
            [self._since(span, audio.timestamp_ms) for span in spans], _lay_at(audio)
        )

    def _recent(self, span: Span) -> Span:
        return self._since(span, self._since_ms, slack_ms=0)

    def _since(self, span: Span, at_ms: int | None, slack_ms: int = SLACK_MS) -> Span:
        if at_ms is None:
            return span
        begin = self._reader.offset_at(span, at_ms - slack_ms)
        return span if begin is None else replace(span, begin=begin)

    def _not_done(self, span: Span) -> Span:
        """Return what the recogniser has not done; of much, and unasked for, the newest alone."""
        begin = max(span.begin, self._next.get(span.partition, span.begin))
        return self._newest_of(replace(span, begin=begin), FOREIGN)

    def _newest_of(self, span: Span, count: int) -> Span:
        """Return the newest records of a span, or as far back as was asked for."""
        if self._since_ms is not None:
            return self._recent(span)
        return replace(span, begin=max(span.begin, span.end - count))

    def _first_in(self, places: Iterator[Span]) -> Found:
        return next((found for place in places if (found := self._read(place))), [])

    def _read(self, *spans: Span) -> Found:
        return self._reader.read(spans, self._about)


def about(ids: set[str]) -> Wanted:
    """Return what tells whether a record is about one of these utterances."""
    return lambda record: record.headers.get(headers.CORRELATION_ID) in ids


def _names_nobody(record: ReceivedRecord) -> bool:
    return headers.CORRELATION_ID not in record.headers


def _lay_at(audio: ReceivedRecord) -> Wanted:
    place = {
        (headers.DLQ_PARTITION, str(audio.partition)),
        (headers.DLQ_OFFSET, str(audio.offset)),
    }
    return lambda record: place <= record.headers.items()


def _told_place(outcome: ReceivedRecord, spans: Sequence[Span]) -> Span | None:
    """Return where a text or a dead letter says that its utterance lies."""
    for partition_name, offset_name in _TOLD_PLACES:
        partition = told_number(outcome.headers, partition_name)
        offset = told_number(outcome.headers, offset_name)
        if offset is None:
            continue
        for span in spans:
            if span.partition == partition and span.begin <= offset < span.end:
                return replace(span, begin=offset, end=offset + 1)
    return None


def _fetched_ms(outcome: ReceivedRecord) -> int:
    told = told_number(outcome.headers, headers.FETCHED_MS)
    return outcome.timestamp_ms if told is None else told
