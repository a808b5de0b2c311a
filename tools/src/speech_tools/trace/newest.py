"""Find the records of the newest utterances, from the ends of the topics.

Used by `speech trace --last`.
"""

from collections.abc import Sequence
from dataclasses import replace
from math import ceil

from speech_lib.kafka import headers
from speech_lib.kafka.records import ReceivedRecord

from speech_tools.topics import Topics
from speech_tools.trace.reader import Span, TopicReader
from speech_tools.trace.search import GROWTH, SLACK_MS, Finding, about

MARGIN = 2
"""Records more of each partition than its share: keys do not spread evenly."""


def newest(reader: TopicReader, topics: Topics, count: int) -> Finding:
    """Return the records of the newest utterances, `count` of them or all there are. Blocks.

    Args:
        reader: Where from.
        topics: Where to look.
        count: How many utterances, at least one.

    Raises:
        BrokerUnavailable: The broker cannot be reached, or fails on the way.
        TopicMissing: One of the topics does not exist.
    """
    counts = reader.partitions([topics.audio, topics.text, topics.dead_letter])
    spans = reader.spans(topics.audio, counts[topics.audio])
    # Asked for before the texts are read: what is committed by now has its outcome there.
    next_offsets = reader.next_offsets(spans)
    audio = _tails(reader, spans, count)
    if not audio:
        return Finding((), next_offsets)
    oldest_ms = min(record.timestamp_ms for record in audio) - SLACK_MS
    outcomes = [
        replace(span, begin=reader.offset_at(span, oldest_ms) or span.begin)
        for topic in (topics.text, topics.dead_letter)
        for span in reader.spans(topic, counts[topic])
    ]
    ids = {record.headers[headers.CORRELATION_ID] for record in audio}
    return Finding((*audio, *reader.read(outcomes, about(ids))), next_offsets)


def _tails(reader: TopicReader, spans: Sequence[Span], count: int) -> list[ReceivedRecord]:
    """Return the newest records of several partitions, the newest last."""
    found: list[ReceivedRecord] = []
    block, left = ceil(count / len(spans)) + MARGIN, list(spans)
    while left:
        tails = [replace(span, begin=max(span.begin, span.end - block)) for span in left]
        read = reader.read(tails, _has_id)
        found = sorted([*found, *read], key=lambda each: each.timestamp_ms)[-count:]
        passed = _passed(read, found[0].timestamp_ms) if len(found) == count else set()
        left = [
            replace(span, end=tail.begin)
            for span, tail in zip(left, tails, strict=True)
            if tail.begin > span.begin and span.partition not in passed
        ]
        block *= GROWTH
    return found


def _passed(read: Sequence[ReceivedRecord], oldest_ms: int) -> set[int]:
    """Return the partitions that have nothing newer than a time before what was read."""
    return {each.partition for each in read if each.timestamp_ms <= oldest_ms}


def _has_id(record: ReceivedRecord) -> bool:
    return headers.CORRELATION_ID in record.headers
