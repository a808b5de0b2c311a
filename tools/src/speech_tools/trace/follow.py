"""Follow utterances while they happen: whenever a record is stored, all that is known of its own.

Used by `speech trace --follow`.
"""

from collections import OrderedDict
from collections.abc import Iterable, Iterator

from speech_lib.kafka import headers
from speech_lib.kafka.records import ReceivedRecord

from speech_tools.topics import Topics
from speech_tools.trace.reader import TopicReader

KEPT = 1_000
"""How many utterances are remembered. The one that was quiet for longest is forgotten first."""

Update = tuple[str, tuple[ReceivedRecord, ...]]
"""A correlation id, and its records so far."""


def follow(reader: TopicReader, topics: Topics) -> Iterator[Update]:
    """Yield an update for each record that is stored from now on, for ever. Blocks.

    All audio that is spoken meanwhile is fetched: Kafka gives no headers alone.

    Raises:
        BrokerUnavailable: The broker cannot be reached at the start. Later it is waited for.
        TopicMissing: One of the topics does not exist.
    """
    counts = reader.partitions([topics.audio, topics.text, topics.dead_letter])
    spans = [span for topic, count in counts.items() for span in reader.spans(topic, count)]
    yield from updates(reader.follow(spans))


def updates(records: Iterable[ReceivedRecord]) -> Iterator[Update]:
    """Yield the records of an utterance each time one is added."""
    known: OrderedDict[str, tuple[ReceivedRecord, ...]] = OrderedDict()
    for record in records:
        correlation_id = record.headers.get(headers.CORRELATION_ID)
        if correlation_id is None:
            continue
        known[correlation_id] = (*known.pop(correlation_id, ()), record)
        if len(known) > KEPT:
            known.popitem(last=False)
        yield correlation_id, known[correlation_id]
