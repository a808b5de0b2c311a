"""Brokers for the tests of the library: librdkafka's mock, and a real one for topics."""

import time
from collections.abc import Iterator
from uuid import uuid4

import pytest
from confluent_kafka.admin import AdminClient, ConfigResource, ResourceType
from speech_lib.kafka.settings import KafkaSettings
from speech_lib.testing.mock_cluster import MockCluster

CONFIG = (
    "max.message.bytes",
    "retention.ms",
    "segment.ms",
    "cleanup.policy",
    "compression.type",
    "retention.bytes",
    "segment.bytes",
)
"""What of a topic's configuration matters."""


class Broker:
    """A real broker, the topics that a test makes there, and what it says of them."""

    def __init__(self, servers: str) -> None:
        self.kafka = KafkaSettings(bootstrap_servers=servers)
        self._admin = AdminClient({"bootstrap.servers": servers})
        self.names: list[str] = []

    def new_name(self) -> str:
        self.names.append(f"topics-{uuid4().hex[:12]}")
        return self.names[-1]

    def describe(self, topic: str) -> tuple[int, dict[str, str]]:
        """Return the number of partitions and the settings that matter."""
        resource = ConfigResource(ResourceType.TOPIC, topic)
        entries = self._admin.describe_configs([resource])[resource].result(20)
        partitions = self._admin.list_topics(topic, timeout=20).topics[topic].partitions
        return len(partitions), {name: entries[name].value for name in CONFIG}

    def describe_once_retained_for(self, topic: str, retention_ms: str) -> object:
        """Describe a topic whose change is on its way: brokers follow the controller with a lag."""
        deadline = time.monotonic() + 10
        while (found := self.describe(topic))[1]["retention.ms"] != retention_ms:
            assert time.monotonic() < deadline, found
        return found

    def delete_all(self) -> None:
        there = self._admin.list_topics(timeout=20).topics
        made = [name for name in self.names if name in there]
        if made:
            for deleted in self._admin.delete_topics(made).values():
                deleted.result(20)


@pytest.fixture
def broker(pipeline) -> Iterator[Broker]:
    if not pipeline.real:
        pytest.skip("needs Apache Kafka: set KAFKA_BOOTSTRAP_SERVERS and SCHEMA_REGISTRY_URL")
    real = Broker(pipeline.bootstrap_servers)
    try:
        yield real
    finally:
        real.delete_all()


@pytest.fixture
def cluster() -> Iterator[MockCluster]:
    """Yield a broker with a topic `t` of one partition."""
    with MockCluster() as running:
        running.create_topic("t")
        yield running
