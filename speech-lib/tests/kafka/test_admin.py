"""Topics as they are made, read back from the broker."""

import socket

import pytest
from speech_lib.errors import BrokerUnavailable, TopicMissing
from speech_lib.kafka.admin import DAY_MS, TopicSpec, ensure_topics
from speech_lib.kafka.settings import KafkaSettings

GIB = 1024**3
SETTINGS = {
    "max.message.bytes": "2097152",
    "retention.ms": "86400000",
    "segment.ms": "3600000",
    "cleanup.policy": "delete",
    "compression.type": "producer",
    "retention.bytes": "-1",
    "segment.bytes": "1073741824",
}
"""What a topic has by default."""


@pytest.mark.parametrize(
    ("bound", "segment"), [(GIB, GIB // 8), (64 * GIB, GIB), (64 * 1024**2, 8 * 1024**2)]
)
def test_the_newest_segment_is_a_small_part_of_the_bound(bound, segment):
    """It is never deleted."""
    found = TopicSpec("t", retention_bytes=bound).config()
    assert (found["retention.bytes"], found["segment.bytes"]) == (str(bound), str(segment))


@pytest.mark.pipeline
def test_topics_are_made_as_they_should_be(broker):
    """Size, retention and partitions are those of the specification."""
    first, second = broker.new_name(), broker.new_name()
    ensure_topics(broker.kafka, [TopicSpec(first), TopicSpec(second, 7 * DAY_MS, 2)])
    assert [broker.describe(name) for name in (first, second)] == [
        (6, SETTINGS),
        (2, SETTINGS | {"retention.ms": "604800000"}),
    ]


@pytest.mark.pipeline
def test_topics_that_are_there_are_set(broker, make_topic):
    """A topic that was made otherwise gets its settings, and keeps its partitions."""
    topic, missing = make_topic("topics", 1), broker.new_name()
    spec = TopicSpec(topic, retention_bytes=GIB, uncompressed=True)
    ensure_topics(broker.kafka, [spec, TopicSpec(missing)])
    changed = {
        "compression.type": "uncompressed",
        "retention.bytes": "1073741824",
        "segment.bytes": "134217728",
    }
    assert broker.describe_once_retained_for(topic, "86400000") == (1, SETTINGS | changed)
    assert broker.describe(missing)[0] == 6


@pytest.mark.pipeline
def test_a_name_that_is_not_valid_is_refused(broker):
    """What asking again does not change is told as such."""
    with pytest.raises(TopicMissing) as caught:
        ensure_topics(broker.kafka, [TopicSpec("not valid")])
    assert caught.value.reason == "TOPIC_EXCEPTION"


def test_a_broker_that_is_down_is_unavailable():
    """Nobody answers: trying again may help."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # nobody listens
        kafka = KafkaSettings(bootstrap_servers=f"127.0.0.1:{taken.getsockname()[1]}")
        with pytest.raises(BrokerUnavailable):
            ensure_topics(kafka, [TopicSpec("t")], timeout=0.5)
