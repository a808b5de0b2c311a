"""Reading topics from their ends on: what is wanted, where it goes on, and when it cannot read."""

import time
from collections.abc import Container, Iterator, Mapping
from contextlib import closing
from uuid import uuid4

import pytest
from confluent_kafka import Consumer, KafkaError, Message, Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewPartitions
from speech_lib.errors import BrokerUnavailable
from speech_lib.kafka import tail as tail_module
from speech_lib.kafka.records import Partition, ReceivedRecord
from speech_lib.kafka.settings import KafkaSettings
from speech_lib.kafka.tail import TopicTail
from speech_lib.testing import foreign
from speech_lib.testing.foreign import ForeignRecord
from speech_lib.testing.mock_cluster import MockCluster

pytestmark = pytest.mark.pipeline

SECONDS = 30
UNPACKED = 105_000_000
"""More than librdkafka unpacks of zstd."""


@pytest.fixture
def cluster() -> Iterator[MockCluster]:
    with MockCluster() as running:
        running.create_topic("t", 2)
        yield running


def tail(servers: str, *topics: str, positions: Mapping[Partition, int] | None = None):
    kafka = KafkaSettings(bootstrap_servers=servers)
    return closing(TopicTail(kafka, topics, positions or {}, client_id="test"))


def store(servers: str, topic: str, *keys: bytes, partition: int = 0) -> None:
    producer = Producer({"bootstrap.servers": servers})
    for key in keys:
        producer.produce(topic, b"of " + key, key, partition)
    assert producer.flush(20) == 0


def read(reader: TopicTail, wanted: Container[bytes], number: int = 1) -> list[ReceivedRecord]:
    records: list[ReceivedRecord] = []
    deadline = time.monotonic() + SECONDS
    while len(records) < number:
        assert time.monotonic() < deadline, f"only {records}"
        records += reader.poll(0.2, wanted)
    return records


class ErrorBehind:
    """A client that tells an error behind the first record."""

    def __init__(self, client: Consumer, error: Message) -> None:
        self.poll, self.close = client.poll, client.close
        self._error = error

    def consume(self, _most: int, _timeout: float) -> list[Message]:
        return [self._error]


def test_only_what_is_wanted_and_stored_from_now_on_is_handed_out(pipeline, make_topic):
    """All partitions of all topics; another's records move the position and nothing else."""
    servers, topics = pipeline.bootstrap_servers, [make_topic("tail", 2) for _ in range(2)]
    for topic in topics:
        store(servers, topic, b"mine", b"mine", partition=1)
    with tail(servers, *topics) as reader:
        for topic in topics:
            store(servers, topic, b"another's", b"mine", partition=1)
        found = read(reader, {b"mine"}, 2)
        assert {(each.topic, each.partition, each.offset, each.value) for each in found} == {
            (topic, 1, 3, b"of mine") for topic in topics
        }
        ends = {(topic, 0): 0 for topic in topics} | {(topic, 1): 4 for topic in topics}
        assert reader.positions == ends


def test_a_new_reader_goes_on_at_the_positions_of_the_last(cluster):
    """What was stored while nobody read is not missed."""
    servers = cluster.bootstrap_servers
    with tail(servers, "t") as before:
        store(servers, "t", b"a", b"b")
        read(before, {b"b"})
    store(servers, "t", b"c")
    with tail(servers, "t", positions=before.positions) as after:
        assert [each.offset for each in read(after, {b"a", b"b", b"c"})] == [2]


def test_records_that_came_with_an_error_are_read_again(cluster, monkeypatch):
    """They were not handed out, so the next reader must find them."""
    servers, refused = cluster.bootstrap_servers, KafkaError.TOPIC_AUTHORIZATION_FAILED
    with tail(servers, "t") as before:
        error = Message(topic="t", partition=1, error=KafkaError(refused))
        monkeypatch.setattr(before, "_client", ErrorBehind(before._client, error))
        store(servers, "t", b"a")
        with pytest.raises(BrokerUnavailable, match="TOPIC_AUTHORIZATION_FAILED"):
            read(before, {b"a"})
    with tail(servers, "t", positions=before.positions) as after:
        assert [each.offset for each in read(after, {b"a"})] == [0]


def test_partitions_that_are_gone_do_not_stop_it(cluster):
    """A topic may have been made anew, with fewer of them, while its reader was away."""
    servers = cluster.bootstrap_servers
    with tail(servers, "t", positions={("t", 7): 3}) as reader:
        store(servers, "t", b"a")
        assert [each.offset for each in read(reader, {b"a"})] == [0]
        assert set(reader.positions) == {("t", 0), ("t", 1)}


def test_partitions_that_are_added_are_read(pipeline, make_topic, monkeypatch):
    """From their first record on, which is younger than the reader."""
    if not pipeline.real:
        pytest.skip("partitions are added on Apache Kafka: scripts/with-kafka pytest -m broker")
    monkeypatch.setattr(tail_module, "_LOOK_SECONDS", 0.1)
    servers, topic = pipeline.bootstrap_servers, make_topic("tail")
    with tail(servers, topic) as reader:
        admin = AdminClient({"bootstrap.servers": servers})
        admin.create_partitions([NewPartitions(topic, 2)])[topic].result(SECONDS)
        store(servers, topic, b"a", partition=1)
        assert [each.partition for each in read(reader, {b"a"})] == [1]


def test_a_topic_that_is_not_there_is_told_by_its_error(pipeline, make_topic):
    """So that the operator learns what is wrong: not there, or not permitted."""
    topic = f"not-there-{uuid4().hex}"
    with pytest.raises(BrokerUnavailable) as caught:
        tail(pipeline.bootstrap_servers, make_topic("tail"), topic)
    assert caught.value.reason == "UNKNOWN_TOPIC_OR_PART"


def test_brokers_that_go_away_are_noticed(monkeypatch):
    """Also while nothing comes, which could as well mean that nobody speaks."""
    monkeypatch.setattr(tail_module, "_LOOK_SECONDS", 0.1)
    with MockCluster() as cluster:
        cluster.create_topic("t")
        with tail(cluster.bootstrap_servers, "t") as reader:
            reader.poll(0.1, ())
            cluster.set_broker_down()
            with pytest.raises(BrokerUnavailable):
                read(reader, ())


def test_a_batch_that_cannot_be_read_is_passed_over(cluster):
    """Nobody can read it, and the texts behind it are waited for."""
    servers = cluster.bootstrap_servers
    with tail(servers, "t") as reader:
        bomb = ForeignRecord(bytes(UNPACKED), b"bomb", compression="zstd")
        foreign.store(servers, "t", bomb)
        deadline = time.monotonic() + SECONDS
        while reader.positions["t", 0] < 1:
            assert time.monotonic() < deadline
            assert reader.poll(0.2, {b"bomb"}) == []
        store(servers, "t", b"a")
        assert [each.value for each in read(reader, {b"a"})] == [b"of a"]
