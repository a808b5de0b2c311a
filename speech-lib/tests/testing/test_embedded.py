"""The embedded broker and registry: one helper process, spoken to by ordinary Kafka clients."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from confluent_kafka import Consumer, KafkaError, Message, Producer, TopicPartition
from speech_lib.testing.embedded import EmbeddedError, EmbeddedPipeline
from speech_lib.testing.pipeline import missing_variable, open_pipeline

pytestmark = pytest.mark.pipeline

LARGEST = 2_097_152 - 1024
COMMAND = [sys.executable, "-m", "speech_lib.testing.embedded"]
JOIN_SECONDS, JOINS = 2.5, 5
"""A group that waits for further members takes 3 s and more."""


@pytest.fixture(scope="module")
def embedded() -> Iterator[EmbeddedPipeline]:
    """Run one helper process for this file."""
    with EmbeddedPipeline(topics=["known"], partitions=3) as running:
        yield running


def deliver(servers: str, topic: str, value: bytes, timeout: float = 10) -> KafkaError | Message:
    """Send one record and return the broker's answer: the record, or the error."""
    answers: list[KafkaError | Message] = []
    producer = Producer(
        {
            "bootstrap.servers": servers,
            "message.max.bytes": 2_097_152,
            "message.timeout.ms": round(timeout * 1000),
            "log_level": 0,
        }
    )
    producer.produce(
        topic, value, b"key", on_delivery=lambda error, message: answers.append(error or message)
    )
    assert producer.flush(timeout + 5) == 0
    return answers[0]


@contextmanager
def subscribed(servers: str, topic: str) -> Iterator[Consumer]:
    """Join a group that reads a topic from its beginning."""
    consumer = Consumer(
        {
            "bootstrap.servers": servers,
            "group.id": f"group-of-{topic}",
            "auto.offset.reset": "earliest",
            "fetch.message.max.bytes": 4_194_304,
            # The mock broker waits this long, less a second, whenever a group's members change.
            "session.timeout.ms": 2_000,
            "heartbeat.interval.ms": 500,
        }
    )
    consumer.subscribe([topic])
    try:
        yield consumer
    finally:
        consumer.close()


def partitions(servers: str, topic: str) -> int:
    """Count a topic's partitions as a client sees them."""
    metadata = Producer({"bootstrap.servers": servers}).list_topics(topic, timeout=10)
    return len(metadata.topics[topic].partitions)


def test_largest_record_goes_in_and_comes_out(embedded: EmbeddedPipeline) -> None:
    """A record of almost 2 MiB is stored, and read."""
    embedded.create_topic("large")
    value = bytes(range(256)) * (LARGEST // 256)
    stored = deliver(embedded.bootstrap_servers, "large", value)
    assert isinstance(stored, Message)
    with subscribed(embedded.bootstrap_servers, "large") as consumer:
        message = consumer.poll(10)
    assert message is not None
    assert (message.key(), message.value(), message.offset()) == (b"key", value, 0)


def test_group_does_not_wait_for_further_members(embedded: EmbeddedPipeline) -> None:
    """It joins within a second or two: the best of a few, for the machine may be busy."""

    def joined(topic: str) -> float:
        embedded.create_topic(topic)
        deliver(embedded.bootstrap_servers, topic, b"value")
        with subscribed(embedded.bootstrap_servers, topic) as consumer:
            started = time.monotonic()
            assert consumer.poll(20) is not None
            return time.monotonic() - started

    took = [joined("joined-0")]
    while took[-1] >= JOIN_SECONDS and len(took) < JOINS:
        took.append(joined(f"joined-{len(took)}"))
    assert min(took) < JOIN_SECONDS


def test_group_goes_on_where_it_committed(embedded: EmbeddedPipeline) -> None:
    """Offsets are kept by the broker, so a second consumer of the group gets the next record."""
    embedded.create_topic("committed")
    for value in (b"first", b"second"):
        deliver(embedded.bootstrap_servers, "committed", value)
    read = []
    for _ in range(2):
        with subscribed(embedded.bootstrap_servers, "committed") as consumer:
            message = consumer.poll(10)
            read.append(message.value())
            next_offset = TopicPartition("committed", 0, message.offset() + 1)
            consumer.commit(offsets=[next_offset], asynchronous=False)
    assert read == [b"first", b"second"]


def test_topics_of_the_start_and_later_ones_have_their_partitions(
    embedded: EmbeddedPipeline,
) -> None:
    """Topics are made at the start or at run time."""
    embedded.create_topic("later", partitions=5)
    servers = embedded.bootstrap_servers
    assert [partitions(servers, topic) for topic in ("known", "later")] == [3, 5]


def test_refused_command_says_why(embedded: EmbeddedPipeline) -> None:
    """A topic that exists is refused, and the helper lives on."""
    with pytest.raises(EmbeddedError, match="topic known: TOPIC_ALREADY_EXISTS"):
        embedded.create_topic("known")
    embedded.create_topic("after-refusal")


def test_injected_error_reaches_the_producer_once(embedded: EmbeddedPipeline) -> None:
    """The next Produce request gets the error; the one after is stored."""
    embedded.create_topic("errors")
    embedded.push_request_errors(0, KafkaError.MSG_SIZE_TOO_LARGE)
    refused = deliver(embedded.bootstrap_servers, "errors", b"x")
    stored = deliver(embedded.bootstrap_servers, "errors", b"x")
    assert isinstance(refused, KafkaError)
    assert (refused.code(), type(stored)) == (KafkaError.MSG_SIZE_TOO_LARGE, Message)


def test_injected_errors_can_be_taken_back(embedded: EmbeddedPipeline) -> None:
    """Errors that were not answered yet are forgotten."""
    embedded.create_topic("taken-back")
    embedded.push_request_errors(0, KafkaError.MSG_SIZE_TOO_LARGE)
    embedded.clear_request_errors(0)
    assert isinstance(deliver(embedded.bootstrap_servers, "taken-back", b"x"), Message)


def test_topic_error_makes_a_topic_unknown(embedded: EmbeddedPipeline) -> None:
    """A client that asks for the topic is told that there is none, until that is taken back."""
    embedded.create_topic("hidden")
    client = Producer({"bootstrap.servers": embedded.bootstrap_servers})
    embedded.set_topic_error("hidden")
    unknown = client.list_topics("hidden", timeout=10).topics["hidden"].error
    embedded.set_topic_error("hidden", 0)
    known = client.list_topics("hidden", timeout=10).topics["hidden"].error
    assert unknown is not None
    assert (unknown.code(), known) == (KafkaError.UNKNOWN_TOPIC_OR_PART, None)


def test_helper_is_out_of_reach_of_ctrl_c(embedded: EmbeddedPipeline) -> None:
    """A terminal's interrupt goes to its session; the parent still needs the broker to drain."""
    assert os.getsid(embedded._process.pid) == embedded._process.pid


def test_broker_goes_down_and_comes_back() -> None:
    """While it is down nothing is delivered; afterwards it is."""
    with EmbeddedPipeline(topics=["t"]) as own:
        own.set_broker_down()
        lost = deliver(own.bootstrap_servers, "t", b"x", timeout=1)
        own.set_broker_up()
        stored = deliver(own.bootstrap_servers, "t", b"x")
    assert isinstance(lost, KafkaError)
    assert (lost.code(), type(stored)) == (KafkaError._MSG_TIMED_OUT, Message)


def test_answers_are_held_back_by_the_round_trip_time() -> None:
    """A delivery takes at least as long as the broker is told to wait."""
    with EmbeddedPipeline(topics=["t"]) as own:
        own.set_rtt(300)
        started = time.monotonic()
        stored = deliver(own.bootstrap_servers, "t", b"x")
        took = time.monotonic() - started
    assert isinstance(stored, Message)
    assert took >= 0.3


def test_failed_start_is_an_error_and_leaves_no_process(capfd: pytest.CaptureFixture[str]) -> None:
    """Two topics of one name: one clear line, and the context is never entered."""
    failing = EmbeddedPipeline(topics=["twice", "twice"])
    with pytest.raises(EmbeddedError, match="has ended"), failing:
        pytest.fail("entered")
    assert capfd.readouterr().err == "embedded: topic twice: TOPIC_ALREADY_EXISTS\n"
    assert failing._process.returncode == 1


def start() -> tuple["subprocess.Popen[str]", dict[str, Any]]:
    """Start the helper as another program would, and read its first line."""
    process = subprocess.Popen(  # noqa: S603 - this package, by this interpreter
        [*COMMAND, "--topics", "a"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    return process, json.loads(process.stdout.readline())


@pytest.mark.parametrize("ending", ["stdin", signal.SIGTERM, signal.SIGINT])
def test_helper_ends_cleanly(ending: str | signal.Signals) -> None:
    """It lives until stdin closes or a signal comes, and then ends with 0."""
    process, line = start()
    with process:
        try:
            assert sorted(line) == ["bootstrap_servers", "schema_registry_url"]
            assert process.stdin is not None
            if isinstance(ending, signal.Signals):
                process.send_signal(ending)
            else:
                process.stdin.close()
            assert process.wait(10) == 0
        finally:
            process.kill()


@pytest.mark.parametrize(
    "line", ["xx", "[]", '["nope"]', '["create_topic", 4]', '["set_rtt", "x"]']
)
def test_wrong_command_is_answered_and_survived(line: str) -> None:
    """A line that is no command is told so, and the next one is obeyed."""
    process, _ = start()
    with process:
        try:
            output, _ = process.communicate(f'{line}\n["create_topic", "b"]\n', timeout=10)
        finally:
            process.kill()
    first, second = (json.loads(answer) for answer in output.splitlines())
    assert first["error"] == 'expected ["command", argument, ...]'
    assert second == {"ok": True}


def test_parent_that_is_killed_takes_the_helper_along() -> None:
    """The helper shares the parent's stderr, so its end is that pipe's end."""
    program = """
import os, signal
from speech_lib.testing.embedded import EmbeddedPipeline
with EmbeddedPipeline():
    os.kill(os.getpid(), signal.SIGKILL)
"""
    command = [sys.executable, "-c", program]
    parent = subprocess.Popen(command, stderr=subprocess.PIPE)  # noqa: S603 - likewise
    _, errors = parent.communicate(timeout=20)
    assert (parent.returncode, errors) == (-signal.SIGKILL, b"")


@pytest.mark.parametrize(
    ("environ", "missing"),
    [
        ({}, None),
        ({"KAFKA_BOOTSTRAP_SERVERS": "b:1", "SCHEMA_REGISTRY_URL": "http://r"}, None),
        ({"KAFKA_BOOTSTRAP_SERVERS": "b:1", "SCHEMA_REGISTRY_URL": ""}, "SCHEMA_REGISTRY_URL"),
        ({"SCHEMA_REGISTRY_URL": "http://r"}, "KAFKA_BOOTSTRAP_SERVERS"),
    ],
)
def test_half_a_real_pipeline_is_named(environ: dict[str, str], missing: str | None) -> None:
    """Both variables or neither: the one that lacks is told."""
    assert missing_variable(environ) == missing


def test_without_variables_the_pipeline_is_embedded() -> None:
    """Every topic that is made has a name of its own."""
    with open_pipeline({}) as running:
        made = [running.make_topic("p", partitions=2) for _ in range(2)]
        assert not running.real
        assert [partitions(running.bootstrap_servers, topic) for topic in made] == [2, 2]
        assert made[0] != made[1]


def test_shared_pipeline_takes_a_record(pipeline, make_topic) -> None:
    """Whichever pipeline the session has, a made topic takes the largest record."""
    topic = make_topic("shared")
    stored = deliver(pipeline.bootstrap_servers, topic, bytes(LARGEST))
    assert isinstance(stored, Message)
    assert (stored.topic(), stored.offset()) == (topic, 0)
