"""Reading what was stored: whole records, each at least once, by who owns its partition."""

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from uuid import uuid4

import pytest
from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition
from speech_lib.errors import BrokerUnavailable
from speech_lib.kafka.consumer import RecordConsumer
from speech_lib.kafka.producer import RecordProducer
from speech_lib.kafka.records import Partitions, ReceivedRecord, Record, Stored
from speech_lib.kafka.settings import KafkaSettings
from speech_lib.testing import foreign
from speech_lib.testing.foreign import ForeignRecord
from speech_lib.testing.mock_cluster import MockCluster

OFFSET_COMMIT = 8
"""The protocol's number of the request that stores offsets."""
LARGEST = 2_000_000
UNPACKED = 105_000_000
"""More than librdkafka unpacks of zstd."""


def kafka(servers: str) -> KafkaSettings:
    return KafkaSettings(bootstrap_servers=servers)


@contextmanager
def consumer(servers: str, topic: str, group: str | None = None, **options):
    """Run a member of a group, by default of a new one."""
    member = RecordConsumer(
        kafka(servers),
        group_id=group or f"g-{uuid4().hex}",
        topics=[topic],
        client_id="test",
        **options,
    )
    try:
        yield member
    finally:
        member.close()


def store(servers: str, *records: Record) -> list[Stored]:
    async def scenario():
        producer = RecordProducer(kafka(servers), client_id="test", delivery_timeout=20)
        try:
            return [await producer.send(record) for record in records]
        finally:
            await producer.close(0)

    return asyncio.run(scenario())


def read(members: list[RecordConsumer], enough: Callable[[list[ReceivedRecord]], bool]):
    """Poll each in turn until there is enough, for at most 20 s."""
    records: list[ReceivedRecord] = []
    deadline = time.monotonic() + 20
    while not enough(records):
        assert time.monotonic() < deadline, f"only {len(records)} records"
        for member in members:
            records += member.poll(0.1)
    return records


def count(number: int) -> Callable[[list[ReceivedRecord]], bool]:
    return lambda records: len(records) >= number


@pytest.fixture
def real_kafka(pipeline):
    """Skip where a group's second member waits for the session timeout of the first, 45 s."""
    if not pipeline.real:
        pytest.skip("needs Apache Kafka: set KAFKA_BOOTSTRAP_SERVERS and SCHEMA_REGISTRY_URL")
    return pipeline.bootstrap_servers


@pytest.fixture
def cluster() -> Iterator[MockCluster]:
    with MockCluster() as running:
        running.create_topic("t", 2)
        yield running


@pytest.mark.pipeline
def test_a_receipt_is_where_the_record_lies(pipeline, make_topic):
    """Key, value and headers of each record are read at the partition and offset of its receipt."""
    topic = make_topic("receipts", 3)
    records = [
        Record(topic, b"key-%d" % number, bytes([number]) * 1000, {"n": str(number), "ü": "é"})
        for number in range(9)
    ]
    before = time.time_ns() // 1_000_000
    receipts = store(pipeline.bootstrap_servers, *records)
    with consumer(pipeline.bootstrap_servers, topic) as member:
        found = {(each.partition, each.offset): each for each in read([member], count(9))}
    for record, stored in zip(records, receipts, strict=True):
        each = found[stored.partition, stored.offset]
        assert each == ReceivedRecord(
            topic,
            stored.partition,
            stored.offset,
            record.key,
            record.value,
            record.headers,
            each.timestamp_ms,
        )
        assert before - 1000 <= each.timestamp_ms <= time.time_ns() // 1_000_000 + 1000


@pytest.mark.pipeline
def test_the_largest_records_are_read_one_after_the_other(pipeline, make_topic):
    """Records close to the agreed size pass producer, broker and consumer, bit for bit."""
    topic = make_topic("large")
    values = [bytes([number]) * LARGEST for number in range(2)]
    store(pipeline.bootstrap_servers, *(Record(topic, b"key", value) for value in values))
    with consumer(pipeline.bootstrap_servers, topic) as member:
        assert [each.value for each in read([member], count(2))] == values


@pytest.mark.pipeline
def test_what_is_not_committed_comes_again(real_kafka, make_topic):
    """The next member of the group begins at the last commit, and at the first record without."""
    topic, group, servers = make_topic("commit"), f"g-{uuid4().hex}", real_kafka
    store(servers, *(Record(topic, b"key", b"%d" % number) for number in range(4)))
    with consumer(servers, topic, group) as member:
        read([member], count(4))
    with consumer(servers, topic, group) as member:
        read([member], count(4))
        member.commit({(topic, 0): 3})
    with consumer(servers, topic, group) as member:
        assert [each.value for each in read([member], count(1))] == [b"3"]


@pytest.mark.pipeline
def test_members_of_a_group_share_the_partitions(real_kafka, make_topic):
    """Who loses partitions is told; those it keeps stay with it; a member that leaves frees its."""
    topic, group, servers = make_topic("share", 4), f"g-{uuid4().hex}", real_kafka
    mine: set[tuple[str, int]] = set()
    revoked: list[Partitions] = []

    def lose(partitions: Partitions) -> None:
        revoked.append(partitions)
        mine.difference_update(partitions)

    theirs: set[tuple[str, int]] = set()
    with consumer(servers, topic, group, on_assign=mine.update, on_revoke=lose) as first:
        read([first], lambda _: len(mine) == 4)
        with consumer(servers, topic, group, on_assign=theirs.update) as second:
            read([first, second], lambda _: len(theirs) == 2)
            assert (len(mine), mine & theirs) == (2, set())
            assert frozenset().union(*revoked) == theirs
        read([first], lambda _: len(mine) == 4)


@pytest.mark.pipeline
def test_a_member_for_whom_there_is_nothing_is_well(real_kafka, make_topic):
    """A group may have more members than partitions; before its answer nobody knows."""
    topic, group = make_topic("few"), f"g-{uuid4().hex}"
    with consumer(real_kafka, topic, group) as first, consumer(real_kafka, topic, group) as second:
        members = [first, second]
        assert [each.problem for each in members] == ["not_joined"] * 2
        read(members, lambda _: [each.problem for each in members] == ["", ""])


@pytest.mark.pipeline
def test_a_commit_can_be_made_while_partitions_are_taken(real_kafka, make_topic):
    """What is done by then is not done again by the next owner."""
    topic, group, servers = make_topic("revoke"), f"g-{uuid4().hex}", real_kafka
    store(servers, *(Record(topic, b"key", b"%d" % number) for number in range(2)))
    done: dict[tuple[str, int], int] = {}
    with consumer(servers, topic, group, on_revoke=lambda _: member.commit(done)) as member:
        read([member], count(2))
        done[topic, 0] = 1
    with consumer(servers, topic, group) as member:
        assert [each.value for each in read([member], count(1))] == [b"1"]


def test_a_record_is_returned_at_once(cluster):
    """A reader does not wait for more than there is."""
    with consumer(cluster.bootstrap_servers, "t") as member:
        store(cluster.bootstrap_servers, Record("t", b"key", b"1"))
        before = time.monotonic()
        records: list[ReceivedRecord] = []
        while not records:
            records = member.poll(10.0)
        assert time.monotonic() - before < 5.0


def test_records_are_returned_in_small_lists(cluster):
    """No more than asked for at once, and none is lost between the lists."""
    store(cluster.bootstrap_servers, *(Record("t", b"key", b"%d" % n) for n in range(5)))
    with consumer(cluster.bootstrap_servers, "t") as member:
        lists = []
        while sum(map(len, lists)) < 5:
            lists.append(member.poll(5.0, max_records=2))
    assert max(map(len, lists)) <= 2
    assert [each.value for some in lists for each in some] == [b"%d" % n for n in range(5)]


def test_a_record_with_nothing_in_it_is_a_record(cluster):
    """Key, value and headers may be absent, and text may not be UTF-8."""
    plain = Producer({"bootstrap.servers": cluster.bootstrap_servers})
    plain.produce("t", partition=0)
    plain.produce("t", partition=0, headers=[("a", b"1"), ("a", b"2"), ("b", None), ("c", b"\xff")])
    plain.flush(10)
    headers: list[Mapping[str, str]] = [{}, {"a": "2", "b": "", "c": "\ufffd"}]
    with consumer(cluster.bootstrap_servers, "t") as member:
        records = read([member], count(2))
    assert records == [
        ReceivedRecord("t", 0, offset, b"", b"", headers[offset], records[offset].timestamp_ms)
        for offset in range(2)
    ]


@pytest.mark.parametrize("name", [b"\xff\xfe", "ü".encode()[:1], b"good\xff"])
def test_a_record_whose_headers_cannot_be_read_is_a_record(cluster, name):
    """Kafka permits any bytes as a name; what can be read comes whole, as do those behind it."""
    servers = cluster.bootstrap_servers
    good = ForeignRecord(b"good", headers=[(b"", b"no name"), (b"a", None)])
    bad = ForeignRecord(b"bad", b"key", [(b"a", b"1"), (name, b"2")])
    # Many: Python calls a function that it has called often in another way.
    written = [good] * 20 + [bad, good] * 5
    for record in written:
        foreign.store(servers, "t", record)
    with consumer(servers, "t") as member:
        found = read([member], count(len(written)))
    headers = {"": "no name", "a": ""}
    assert found == [
        ReceivedRecord("t", 0, at, b"", b"good", headers, found[at].timestamp_ms)
        if record is good
        else ReceivedRecord("t", 0, at, b"key", b"bad", {}, found[at].timestamp_ms, False)
        for at, record in enumerate(written)
    ]


def test_who_wants_no_record_gets_none_and_loses_none(cluster):
    """Its partitions come all the same, and what is stored meanwhile comes with the next call."""
    servers = cluster.bootstrap_servers
    values = [b"first", b"second"]
    store(servers, Record("t", b"key", values[0]))
    mine: set[tuple[str, int]] = set()
    with consumer(servers, "t", on_assign=mine.update) as member:
        deadline = time.monotonic() + 20
        while len(mine) < 2:
            assert time.monotonic() < deadline
            assert member.poll(0.1, max_records=0) == []
        store(servers, Record("t", b"key", values[1]))
        assert [member.poll(0.2, max_records=0) for _ in range(5)] == [[]] * 5
        assert [each.value for each in read([member], count(2))] == values


def test_a_commit_is_stored(cluster):
    """The group's offset of the partition is the next one to read."""
    store(cluster.bootstrap_servers, Record("t", b"key", b"1"))
    with consumer(cluster.bootstrap_servers, "t", "the-group") as member:
        (record,) = read([member], count(1))
        member.commit({("t", record.partition): record.offset + 1})
    config = {"bootstrap.servers": cluster.bootstrap_servers, "group.id": "the-group"}
    with Consumer(config) as other:
        (committed,) = other.committed([TopicPartition("t", record.partition)], timeout=5)
    assert committed.offset == 1


def test_a_commit_of_a_member_that_was_left_behind_is_told(cluster):
    """The group has moved on: the name of Kafka's error says so."""
    store(cluster.bootstrap_servers, Record("t", b"key", b"1"))
    with consumer(cluster.bootstrap_servers, "t") as member:
        (record,) = read([member], count(1))
        cluster.push_request_errors(OFFSET_COMMIT, KafkaError.ILLEGAL_GENERATION)
        with pytest.raises(BrokerUnavailable) as caught:
            member.commit({("t", record.partition): 1})
        assert caught.value.reason == "ILLEGAL_GENERATION"


def test_nothing_to_commit_is_nothing_to_do(cluster):
    """No request is made, so no broker is needed."""
    with consumer(cluster.bootstrap_servers, "t") as member:
        cluster.set_broker_down()
        member.commit({})


def store_unreadable(servers: str, topic: str, records: int) -> int:
    """Store a batch of a few kilobytes that nobody can unpack; return the offset of its first."""
    at: list[int] = []
    client = Producer(
        {
            "bootstrap.servers": servers,
            "compression.type": "zstd",
            "message.max.bytes": 1_000_000_000,
            "batch.size": 1_000_000_000,
            "queue.buffering.max.kbytes": 1_000_000,
            "linger.ms": 2_000,
        }
    )
    value = bytes(UNPACKED // records)
    for _ in range(records):
        client.produce(topic, value, partition=0, on_delivery=lambda _, m: at.append(m.offset()))
    assert client.flush(20) == 0
    return at[0]


@pytest.mark.parametrize("length", [1, 3])
def test_a_batch_that_cannot_be_read_is_told_and_passed_over(cluster, length):
    """The record behind it is read, and until a commit passes it the member is in problem."""
    cluster.create_topic("one", 1)
    store(cluster.bootstrap_servers, Record("one", b"key", b"before"))
    first = store_unreadable(cluster.bootstrap_servers, "one", length)
    store(cluster.bootstrap_servers, Record("one", b"key", b"behind"))
    with consumer(cluster.bootstrap_servers, "one") as member:
        before, damaged, behind = read([member], count(3))
        assert (before.value, behind.value) == (b"before", b"behind")
        assert damaged == ReceivedRecord.damaged("one", 0, first, first + length - 1)
        assert member.problem == "_BAD_COMPRESSION"
        member.commit({("one", 0): first})
        assert member.problem == "_BAD_COMPRESSION"
        member.commit({("one", 0): damaged.offset + 1})
        assert member.problem == ""


@pytest.mark.pipeline
def test_a_topic_that_appears_later_is_read():
    """A consumer that came first finds its topic within some seconds."""
    with MockCluster() as cluster:
        cluster.set_topic_error("late")
        with consumer(cluster.bootstrap_servers, "late") as member:
            assert member.poll(1.0) == []
            cluster.set_topic_error("late", 0)
            store(cluster.bootstrap_servers, Record("late", b"key", b"1"))
            before = time.monotonic()
            assert [each.value for each in read([member], count(1))] == [b"1"]
            assert time.monotonic() - before < 10


@pytest.mark.pipeline
def test_of_a_partition_that_is_held_nothing_is_read_and_nothing_is_lost(cluster):
    """The others are read meanwhile; then it goes on where it was."""
    producer = Producer({"bootstrap.servers": cluster.bootstrap_servers})
    held, gained = frozenset({("t", 0)}), set()
    with consumer(cluster.bootstrap_servers, "t", on_assign=gained.update) as member:
        while not gained:
            assert member.poll(0.1, held=held) == []
        member.poll(0.1, held=held)
        for number in range(20):
            producer.produce("t", b"%d" % number, partition=number % 2)
        assert producer.flush(20) == 0
        found: list[ReceivedRecord] = []
        deadline = time.monotonic() + 20
        while len(found) < 10:
            assert time.monotonic() < deadline
            found += member.poll(0.1, held=held)
        assert member.poll(0.5, held=held) == []
        assert [(each.partition, each.offset) for each in found] == [(1, at) for at in range(10)]
        found = read([member], count(10))
    assert [(each.partition, each.offset) for each in found] == [(0, at) for at in range(10)]
