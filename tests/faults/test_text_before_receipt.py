"""The recogniser is faster than the broker's answer to the gateway, on Apache Kafka.

The gateway waits for the answer of the broker that leads the audio. Another one leads the texts,
and its answers come at once.
"""

import asyncio
import json
import time
import uuid

import pytest
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from speech_lib.events import TextRecognized, TextRecognizedEvent
from speech_lib.kafka import headers
from speech_lib.kafka.producer import RecordProducer
from speech_lib.kafka.records import Record
from speech_lib.kafka.registry import EventSerializer, SchemaRegistry
from support.cluster import SERVICES, host_proxy
from support.waiting import until
from websockets.asyncio.client import connect

AUDIO_LEADER, TEXT_LEADER = 1, 2
DELAY_SECONDS = 2.0
"""Shorter than the gateway waits for one answer, a third of its delivery timeout."""
TEXTS = 3


@pytest.fixture
def topics(cluster) -> dict[str, str]:
    """Topics of one partition each, the one of audio on another broker than the others."""
    leaders = {
        "TOPIC_AUDIO_INGRESS": AUDIO_LEADER,
        "TOPIC_ASR_TEXT": TEXT_LEADER,
        "TOPIC_DEAD_LETTER": TEXT_LEADER,
    }
    names = {variable: f"slow-{variable.lower()}-{uuid.uuid4().hex[:8]}" for variable in leaders}
    new = [
        NewTopic(names[variable], 1, replica_assignment=[[leader, *(SERVICES.keys() - {leader})]])
        for variable, leader in leaders.items()
    ]
    admin = AdminClient({"bootstrap.servers": cluster.bootstrap_servers})
    for made in admin.create_topics(new).values():
        made.result(20)
    until(
        lambda: [cluster.leaders(names[variable])[0] for variable in leaders],
        lambda found: found == list(leaders.values()),
        seconds=30,
    )
    return names


async def say_while_slow(url: str, slow, write) -> tuple[list[dict], list[float], float]:
    """Say something, and write its text before the receipt.

    Returns:
        The messages behind the greeting, when each came, and when the texts were stored.
    """
    async with connect(f"{url}?results=text") as client:
        correlation_id = json.loads(await client.recv())["correlation_id"]
        with slow:
            await client.send(bytes(32_000))
            await client.send('{"event":"done"}')
            began = time.monotonic()
            await write(correlation_id)
            stored = time.monotonic() - began
            messages, times = [], []
            async for message in client:
                messages.append(json.loads(message))
                times.append(time.monotonic() - began)
    return messages, times, stored


def test_a_text_before_the_receipt_is_told_behind_it(cluster, topics, start_gateway):
    """It is not missed, not told before `accepted`, and told once, however often it is written."""
    registry = SchemaRegistry(cluster.registry_url)
    serializer = EventSerializer(
        registry, topics["TOPIC_ASR_TEXT"], TextRecognizedEvent, auto_register=True
    )
    serializer.warm_up()

    async def scenario(url: str):
        producer = RecordProducer(cluster.kafka, client_id="test", delivery_timeout=10)

        async def write(correlation_id: str) -> None:
            for number in range(TEXTS):
                event = TextRecognizedEvent.new(
                    correlation_id=correlation_id,
                    source_service="asr",
                    payload=TextRecognized(f"text {number}", "en", 0.5),
                )
                value, key = serializer.encode(event), correlation_id.encode()
                named = {headers.CORRELATION_ID: correlation_id}
                await producer.send(Record(topics["TOPIC_ASR_TEXT"], key, value, named))

        try:
            await write(str(uuid.uuid4()))  # so that connections are open, as a recogniser's are
            slow = cluster.toxiproxy.answers_delayed(DELAY_SECONDS, host_proxy(AUDIO_LEADER))
            return await say_while_slow(url, slow, write)
        finally:
            await producer.close(2)

    with start_gateway(RESULTS="on") as gateway:
        messages, times, stored = asyncio.run(scenario(gateway.url))
    registry.close()
    print(f"texts stored after {stored:.2f} s, messages after {times}")  # noqa: T201
    assert [message["status"] for message in messages] == ["accepted", "recognized"]
    assert messages[1]["text"] == "text 0"
    assert stored < DELAY_SECONDS <= times[0]
    assert times[1] - times[0] < DELAY_SECONDS / 2
