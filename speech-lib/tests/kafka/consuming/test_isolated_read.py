"""A record that ends its reader is found by those that may be ended, and by nobody else."""

import uuid
from contextlib import closing

from confluent_kafka import Consumer, Producer, TopicPartition
from speech_lib.kafka.consumer import RecordConsumer
from speech_lib.kafka.consuming.config import consumer_config
from speech_lib.kafka.consuming.crash_marks import READING
from speech_lib.kafka.consuming.isolated_read import Position, read_isolated
from speech_lib.kafka.records import ReceivedRecord
from speech_lib.kafka.settings import ClientConfig, KafkaSettings
from speech_lib.testing import foreign
from speech_lib.testing.deadly import endure
from speech_lib.testing.foreign import ForeignRecord
from speech_lib.testing.mock_cluster import MockCluster

POLLS = 100
MIB = 1024 * 1024


def config(cluster: MockCluster) -> ClientConfig:
    kafka = KafkaSettings(bootstrap_servers=cluster.bootstrap_servers)
    return consumer_config(kafka, group_id=f"g-{uuid.uuid4()}", client_id="test")


def store(cluster: MockCluster, *values: bytes) -> None:
    client = Producer({"bootstrap.servers": cluster.bootstrap_servers})
    for value in values:
        client.produce("t", value)
        assert client.flush(20) == 0


def told(records: list[ReceivedRecord]) -> list[bytes | None]:
    """Return the values, None where one stands for what ended its reader."""
    assert [each.offset for each in records] == list(range(len(records)))
    return [each.value if each.damaged_from is None else None for each in records]


def test_a_record_that_ends_its_reader_is_told_and_the_others_are_read(cluster):
    """Also two in a row; what merely raises or takes memory that it does not get is read."""
    store(cluster, b"a", b"kill", b"crash", b"raise", b"eat", b"b")
    found = read_isolated(config(cluster), Position("t", 0, 0), endure)
    assert told(found) == [b"a", None, None, b"raise", b"eat", b"b"]


def test_a_record_that_unpacks_to_all_memory_ends_its_reader_alone(cluster):
    """A bomb of two megabytes; its process may have 128 MB, and the record behind it is read."""
    store(cluster, b"a")
    bomb = ForeignRecord(bytes(300 * MIB), compression="lz4")
    foreign.store(cluster.bootstrap_servers, "t", bomb)
    store(cluster, b"b")
    found = read_isolated(config(cluster), Position("t", 0, 0), endure)
    assert told(found) == [b"a", None, b"b"]


def test_where_no_process_can_be_had_no_record_is_to_blame(cluster):
    """All is left to be read as ever; what cannot be imported ends it before it reads."""
    store(cluster, b"a")
    assert read_isolated(config(cluster), Position("t", 0, 0), _not_importable) == []


def _not_importable(_: bytes) -> None:
    """Be of a module that no other process finds."""


def member(cluster: MockCluster, group: str) -> RecordConsumer:
    return RecordConsumer(
        KafkaSettings(bootstrap_servers=cluster.bootstrap_servers),
        group_id=group,
        topics=["t"],
        client_id="test",
        trial_decode=endure,
    )


def read(consumer: RecordConsumer, count: int) -> list[ReceivedRecord]:
    found: list[ReceivedRecord] = []
    for _ in range(POLLS):
        found += consumer.poll(0.5, max_records=count - len(found))
        if len(found) >= count:
            return found
    raise AssertionError(f"{len(found)} of {count} records")


def mark(cluster: MockCluster, group: str) -> tuple[int, str]:
    """Return what a group has committed, with what it says of its reader."""
    client = {"bootstrap.servers": cluster.bootstrap_servers, "group.id": group}
    with Consumer(client) as other:
        (found,) = other.committed([TopicPartition("t", 0)], timeout=20)
    return found.offset, found.metadata or ""


def test_what_a_killed_member_left_is_read_apart_once(cluster):
    """The next one reads the same, and goes on behind it; what is given back bears no mark."""
    store(cluster, b"a", b"kill", b"b")
    # A member that is only dropped has left no word that it gives the partition back.
    killed = member(cluster, "g")
    assert [each.value for each in read(killed, 3)] == [b"a", b"kill", b"b"]
    killed._crash_marks = None
    killed.close()
    with closing(member(cluster, "g")) as careful:
        assert told(read(careful, 3)) == [b"a", None, b"b"]
        store(cluster, b"c")
        assert [each.value for each in read(careful, 1)] == [b"c"]
        careful.commit({("t", 0): 1})
        assert mark(cluster, "g") == (1, READING)
    assert mark(cluster, "g") == (1, "")
