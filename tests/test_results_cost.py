"""What the texts of others cost a gateway whose clients wait for theirs, on Apache Kafka."""

import asyncio
import json
import time
import uuid

import pytest
from confluent_kafka import Producer
from speech_lib.events import TextRecognized, TextRecognizedEvent
from speech_lib.events.codec import encode
from speech_lib.events.model import SAMPLE_RATE_HZ
from speech_tools import stack
from support import operations
from support.ports import free_ports
from websockets.asyncio.client import ClientConnection, connect

pytestmark = [pytest.mark.pipeline, pytest.mark.full, pytest.mark.timeout(180)]

WAITING = 10
SECONDS = 20
TICK_SECONDS = 0.01
SILENCE = bytes(SAMPLE_RATE_HZ)
CPU = "process_cpu_seconds_total "


def cpu_seconds(ops_port: int) -> float:
    """Return the processor time that the gateway has taken since its start."""
    _, text = operations.page(ops_port, "/metrics")
    return next(float(line.split()[-1]) for line in text.splitlines() if line.startswith(CPU))


async def waiting(url: str) -> ClientConnection:
    """Say something that nobody will recognise, and stay."""
    client = await connect(f"{url}?results=text")
    await client.recv()
    await client.send(SILENCE)
    await client.send('{"event":"done"}')
    assert json.loads(await client.recv())["status"] == "accepted"
    return client


def send_texts(servers: str, topic: str, per_second: int) -> int:
    """Store texts at an even pace, as many recognisers do, each of an utterance of its own."""
    producer = Producer({"bootstrap.servers": servers, "linger.ms": 0})
    event = TextRecognizedEvent.new(
        correlation_id=str(uuid.uuid4()),
        source_service="asr",
        payload=TextRecognized("go forward ten meters " * 5, "en", 0.5),
    )
    value, began, sent = encode(event, 1), time.monotonic(), 0
    while (passed := time.monotonic() - began) < SECONDS:
        for _ in range(round(passed * per_second) - sent):
            producer.produce(topic, value, str(uuid.uuid4()).encode())
            sent += 1
        producer.poll(TICK_SECONDS)
    assert producer.flush(20) == 0
    return sent


@pytest.mark.parametrize(("per_second", "most_cores"), [(1_000, 0.1), (10_000, 0.6)])
def test_the_texts_of_others_cost_little(pipeline, make_topic, tmp_path, per_second, most_cores):
    """Their keys are looked at, and nothing else."""
    if not pipeline.real:
        pytest.skip("needs Apache Kafka: scripts/with-kafka pytest -m full")
    (ops_port,) = free_ports(["ops"]).values()
    settings = {
        "TOPIC_AUDIO_INGRESS": make_topic("audio"),
        "TOPIC_ASR_TEXT": make_topic("text", 6),
        "TOPIC_DEAD_LETTER": make_topic("dead", 6),
        "RESULTS": "on",
        "RESULT_TIMEOUT_SECONDS": "120",
        "OPS_PORT": str(ops_port),
    }

    async def scenario(url: str) -> tuple[float, int, float]:
        clients = await asyncio.gather(*(waiting(url) for _ in range(WAITING)))
        try:
            idle = await asyncio.to_thread(cpu_seconds, ops_port)
            await asyncio.sleep(SECONDS)  # what is measured is a stretch of time
            began = await asyncio.to_thread(cpu_seconds, ops_port)
            sent = await asyncio.to_thread(
                send_texts, pipeline.bootstrap_servers, settings["TOPIC_ASR_TEXT"], per_second
            )
            return began - idle, sent, await asyncio.to_thread(cpu_seconds, ops_port) - began
        finally:
            for client in clients:
                client.transport.abort()

    with stack.gateway(pipeline, tmp_path, settings) as gateway:
        idle, sent, busy = asyncio.run(scenario(gateway.url))
    print(  # noqa: T201
        f"{sent / SECONDS:.0f} texts a second: {busy / SECONDS:.3f} of a core, "
        f"without texts {idle / SECONDS:.3f}"
    )
    assert sent > 0.9 * per_second * SECONDS
    assert busy / SECONDS < most_cores
