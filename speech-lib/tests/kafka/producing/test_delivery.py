"""The rules of delivery: what an error means for a record, and how sure that is."""

import pytest
from confluent_kafka import KafkaError, Producer
from speech_lib.errors import DeliveryError
from speech_lib.kafka.producing.delivery import delivery_error, producer_config, tried_once
from speech_lib.kafka.settings import KafkaSettings

PRODUCE = 0
"""The protocol's number of the request that stores records."""


def facts(error: DeliveryError) -> tuple[str, str | None, str]:
    """Return what a caller decides by."""
    return error.stored, error.refused, error.reason


@pytest.mark.parametrize(
    ("what", "name"),
    [
        ("record", "MSG_SIZE_TOO_LARGE"),
        ("record", "RECORD_LIST_TOO_LARGE"),
        ("record", "INVALID_MSG_SIZE"),
        ("record", "INVALID_RECORD"),
        ("record", "INVALID_TIMESTAMP"),
        ("record", "POLICY_VIOLATION"),
        ("topic", "TOPIC_EXCEPTION"),
        ("topic", "UNKNOWN_TOPIC_OR_PART"),
        ("topic", "_UNKNOWN_TOPIC"),
        ("topic", "_UNKNOWN_PARTITION"),
        ("topic", "TOPIC_AUTHORIZATION_FAILED"),
        ("topic", "CLUSTER_AUTHORIZATION_FAILED"),
        ("topic", "INVALID_REQUIRED_ACKS"),
        ("topic", "UNSUPPORTED_FOR_MESSAGE_FORMAT"),
        ("topic", "UNSUPPORTED_COMPRESSION_TYPE"),
    ],
)
@pytest.mark.parametrize("stored", ["no", "unknown"])
def test_a_refusal_says_whether_the_record_or_the_topic_is_refused(what, name, stored):
    """It would be refused again, this record or any; nothing is said of the tries before it."""
    error = delivery_error(KafkaError(getattr(KafkaError, name)), stored)
    assert facts(error) == (stored, what, name)


@pytest.mark.parametrize(
    "name",
    [
        "_MSG_TIMED_OUT",
        "_TRANSPORT",
        "REQUEST_TIMED_OUT",
        "NOT_ENOUGH_REPLICAS_AFTER_APPEND",
        "KAFKA_STORAGE_ERROR",
        "OUT_OF_ORDER_SEQUENCE_NUMBER",
        "INVALID_MSG",
        "SASL_AUTHENTICATION_FAILED",
        "UNKNOWN",
    ],
)
def test_any_other_error_says_nothing_about_a_record_handed_over(name):
    """It may be stored, and trying again may help; it is not stored if it never left."""
    error = KafkaError(getattr(KafkaError, name))
    assert facts(delivery_error(error, "unknown")) == ("unknown", None, name)
    assert facts(delivery_error(error, "no")) == ("no", None, name)


@pytest.mark.pipeline
@pytest.mark.parametrize(
    "first",
    ["NOT_LEADER_FOR_PARTITION", "REQUEST_TIMED_OUT", "KAFKA_STORAGE_ERROR", "INVALID_MSG"],
)
def test_a_second_try_never_comes_as_soon_as_an_answer_to_the_first(cluster, first):
    """By librdkafka's back-off, which tells a refusal of the first try from a later one."""
    client = Producer(
        producer_config(
            KafkaSettings(bootstrap_servers=cluster.bootstrap_servers),
            client_id="test",
            delivery_timeout=5.0,
            queue_bytes=1024 * 1024,
        )
    )
    took = []

    def send() -> None:
        expected = len(took) + 1
        client.produce("t", b"value", on_delivery=lambda _, message: took.append(message.latency()))
        while len(took) < expected:
            client.poll(0.1)

    send()
    for _ in range(5):
        cluster.push_request_errors(PRODUCE, getattr(KafkaError, first))
        send()
    assert [seconds for seconds in took[1:] if tried_once(seconds)] == []


@pytest.mark.parametrize(
    ("seconds", "once"), [(0.0, True), (0.19, True), (0.2, False), (-1.0, False), (None, False)]
)
def test_a_refusal_is_certain_only_where_it_came_at_once(seconds, once):
    """What the library does not tell is no certainty either."""
    assert tried_once(seconds) is once
