"""A gateway on Apache Kafka that loses the right to write, or whose broker is frozen, and heals."""

import asyncio
import time

from confluent_kafka.admin import AclOperation
from speech_tools.protocol import client
from support.waiting import until

DELIVERY_SECONDS = 6.0


def test_a_right_to_write_that_is_given_back_is_noticed(kafka, start):
    """Refused for good while it is missing; accepted within 5 s of its return, by itself."""
    topic = kafka.make_topic()

    def code() -> str:
        outcome = asyncio.run(client.stream(url, bytes(32_000), paced=False))
        return outcome.final.get("code", outcome.final["status"])

    with kafka.permission(topic, AclOperation.DESCRIBE):
        with kafka.permission(topic, AclOperation.WRITE):
            process = start(topic)
            url = f"ws://127.0.0.1:{process.wait_for(event='listening')['port']}/ws/audio"
            process.wait_for(event="ready")
            assert code() == "accepted"
        until(lambda: code() == "rejected_by_broker", seconds=5)
        with kafka.permission(topic, AclOperation.WRITE):
            until(lambda: code() == "accepted", seconds=5)
    process.wait_for(event="broker_lost", reason="TOPIC_AUTHORIZATION_FAILED")
    with kafka.permission(topic, AclOperation.WRITE):
        process.wait_for(event="broker_back")
        until(lambda: code() == "accepted", seconds=5)
    assert len(kafka.log(topic)) == 3


def test_a_broker_that_is_frozen_is_seen_and_so_is_its_return(kafka, start):
    """Not ready within 10 s, clients answered in time, ready within 5 s of the thaw."""
    topic = kafka.make_topic()
    with kafka.permission(topic, AclOperation.WRITE):
        process = start(topic, DELIVERY_TIMEOUT_SECONDS=str(DELIVERY_SECONDS))
        url = f"ws://127.0.0.1:{process.wait_for(event='listening')['port']}/ws/audio"
        process.wait_for(event="ready")
        kafka.container.pause()
        frozen = time.monotonic()
        try:
            outcome = asyncio.run(client.stream(url, bytes(32_000), paced=False))
            answered = time.monotonic() - frozen
            process.wait_for(event="broker_lost")
            seen = time.monotonic() - frozen
        finally:
            kafka.container.unpause()
        thawed = time.monotonic()
        process.wait_for(event="broker_back")
        back = time.monotonic() - thawed
        final = asyncio.run(client.stream(url, bytes(32_000), paced=False)).final
    told = (outcome.final["code"], outcome.final["stored"], final["status"])
    print(f"answered after {answered:.1f} s, back {back:.1f} s after the thaw")  # noqa: T201
    assert told == ("broker_unavailable", "unknown", "accepted")
    assert answered < DELIVERY_SECONDS + 2
    assert seen < 10
    assert back < 5
    assert kafka.log(topic)[final["offset"]] == final["correlation_id"]
