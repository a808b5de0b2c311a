"""Topics as they are made, read back from the broker."""

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from uuid import uuid4

import pytest
from confluent_kafka.admin import AdminClient, ConfigResource, ResourceType
from speech_lib.errors import BrokerUnavailable, TopicMissing
from speech_lib.kafka.admin import DAY_MS, TopicSpec, ensure_topics
from speech_lib.kafka.settings import KafkaSettings
from speech_lib.topics import TopicsEnvironment

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
SERVERS = {"KAFKA_BOOTSTRAP_SERVERS": "kafka:9092"}


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
        return len(partitions), {name: entries[name].value for name in SETTINGS}

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


def test_the_topics_of_the_pipeline():
    """Utterances and texts are kept for a day, dead letters for a week; no utterance is packed."""
    assert TopicsEnvironment.load(SERVERS).specs() == [
        TopicSpec("speech.audio.ingress", DAY_MS, 6, uncompressed=True),
        TopicSpec("speech.asr.text", DAY_MS, 6),
        TopicSpec("speech.audio.ingress.dlq", 7 * DAY_MS, 6),
    ]


def test_names_and_partitions_come_from_the_environment():
    """Each topic can have another name, and all can have more partitions."""
    names = {"TOPIC_AUDIO_INGRESS": "a", "TOPIC_ASR_TEXT": "b", "TOPIC_DEAD_LETTER": "c"}
    environ = {**SERVERS, **names, "TOPIC_PARTITIONS": "12"}
    assert TopicsEnvironment.load(environ).specs() == [
        TopicSpec("a", DAY_MS, 12, uncompressed=True),
        TopicSpec("b", DAY_MS, 12),
        TopicSpec("c", 7 * DAY_MS, 12),
    ]


def test_a_bound_by_size_is_for_each_topic():
    """As dead letters and texts fill the same disk."""
    environ = {**SERVERS, "TOPIC_RETENTION_BYTES": str(GIB)}
    assert {spec.retention_bytes for spec in TopicsEnvironment.load(environ).specs()} == {GIB}


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


@pytest.mark.pipeline
def test_the_program_makes_the_topics(broker):
    """`python -m speech_lib.topics` ends with 0 once they are there, also a second time."""
    names = [broker.new_name() for _ in range(3)]
    variables = ("TOPIC_AUDIO_INGRESS", "TOPIC_ASR_TEXT", "TOPIC_DEAD_LETTER")
    environ = {
        "KAFKA_BOOTSTRAP_SERVERS": broker.kafka.bootstrap_servers,
        **dict(zip(variables, names, strict=True)),
    }
    codes = [run_program(environ).returncode for _ in range(2)]
    assert codes == [0, 0]
    assert [broker.describe(name)[1]["retention.ms"] for name in names] == [
        "86400000",
        "86400000",
        "604800000",
    ]


def test_a_broker_that_is_down_is_unavailable():
    """Nobody answers: trying again may help."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # nobody listens
        kafka = KafkaSettings(bootstrap_servers=f"127.0.0.1:{taken.getsockname()[1]}")
        with pytest.raises(BrokerUnavailable):
            ensure_topics(kafka, [TopicSpec("t")], timeout=0.5)


@pytest.mark.pipeline
def test_the_program_says_what_is_wrong_with_the_environment():
    """It ends with 2 and one line that names the variables."""
    ended = run_program({"TOPIC_PARTITIONS": "0"})
    assert (ended.returncode, ended.stdout, ended.stderr) == (
        2,
        "",
        (
            "topics: KAFKA_BOOTSTRAP_SERVERS: required, expected host:port, or several separated "
            "by commas; TOPIC_PARTITIONS: expected a whole number from 1 to 1000, got 0\n"
        ),
    )


def run_program(environ: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "speech_lib.topics"],
        env=environ,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )


@pytest.mark.pipeline
def test_program_stopped_before_it_has_made_the_topics_does_not_say_so():
    """Whoever waits for the topics must not take an end without them for success."""
    program = subprocess.Popen(
        [sys.executable, "-m", "speech_lib.topics"],
        env={"KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1"},
        stdout=subprocess.PIPE,
        text=True,
    )
    with program:
        assert program.stdout is not None
        assert '"waiting"' in program.stdout.readline()
        program.terminate()
        assert program.wait(20) == 1
