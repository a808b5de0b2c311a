"""The stack stopped and started again: what was stored is there, and what was owed is done."""

import asyncio
import json
from typing import NamedTuple
from urllib.request import Request, urlopen

import pytest
from speech_tools.operations import metrics_page
from speech_tools.protocol import audio
from support.waiting import until
from websockets.asyncio.client import connect

REGISTRY_SECONDS = 10
METRICS_SECONDS = 10
RECOVERY_SECONDS = 60
CHUNK_BYTES = 32_000
HELD_UP_SECONDS = 1.0
"""A name that cannot be looked up takes about four."""
OFFSETS = "/opt/kafka/bin/kafka-get-offsets.sh --bootstrap-server localhost:9092"
GROUP = "/opt/kafka/bin/kafka-consumer-groups.sh --bootstrap-server localhost:9092"


class Outcome(NamedTuple):
    """How an utterance ended."""

    final: dict
    close_code: int | None


@pytest.fixture
def stopped_stack(stack):
    """Return the stack for a test that stops it; afterwards it runs for the others."""
    yield stack
    start(stack)


def test_what_was_accepted_before_a_stop_is_transcribed_after(stopped_stack, speech):
    """Topics, schemas and offsets outlive a stop; nothing is lost, nothing is done twice."""
    stack = stopped_stack
    (done,) = stack.speak(speech)
    stack.transcribed(done)
    stop(stack, "asr-service")
    (owed,) = stack.speak(speech)
    missing = stack.trace(owed)
    assert missing.returncode == 1
    assert missing.stderr == (
        "trace: stored but not fetched: no ASR service is running in group asr-service; "
        "no utterance is before it on its partition\n"
    )
    topics, committed, schemas = kafka(stack, OFFSETS), commits(stack), registered(stack)
    stop(stack)
    assert stack.containers() == {}

    start(stack, "kafka", "schema-registry")
    assert kafka(stack, OFFSETS) == topics
    assert commits(stack) == committed
    keep_schemas(stack, schemas)
    start(stack)
    assert [result["text"] for result in stack.transcribed(owed)["results"]] == [
        "Go forward 10 meters."
    ]
    assert [result["repeats"] for result in stack.transcribed(done)["results"]] == [0]


def test_a_broker_whose_name_is_gone_holds_up_nobody(stopped_stack, speech):
    """A stopped container has no name: looking it up takes seconds, in which the loop must turn."""
    stack = stopped_stack
    before = lag(stack)
    try:
        outcome = asyncio.run(speak_to_nobody(stack, audio.load(speech).pcm[:CHUNK_BYTES]))
    finally:
        recover(stack, "kafka", "gateway-service", "asr-service")
    assert outcome.final["code"] == "broker_unavailable"
    assert outcome.close_code == 1013
    late = lag(stack).since(before)
    assert late is not None
    assert late.counts[-1] > 0
    assert late.counts[-1] == late.counts[late.bounds.index(HELD_UP_SECONDS)]


async def speak_to_nobody(stack, pcm):
    """Speak an utterance; Kafka is stopped before its end."""
    url = f"ws://localhost:{stack.ports['GATEWAY_HOST_PORT']}/ws/audio"
    async with connect(url, compression=None) as connection:
        await connection.recv()
        await connection.send(pcm)
        await asyncio.to_thread(stop, stack, "kafka")
        await connection.send('{"event": "done"}')
        final = json.loads(await connection.recv())
        await connection.wait_closed()
        return Outcome(final, connection.close_code)


def recover(stack, *services):
    """Start services, and wait for them: `up --wait` gives up at once where one is unhealthy."""
    assert stack.compose("start", *services).returncode == 0
    until(
        lambda: {stack.container(service).health for service in services},
        {"healthy"}.__eq__,
        seconds=RECOVERY_SECONDS,
    )


def lag(stack):
    """Return how late the gateway's event loop has been so far."""
    port = stack.ports["GATEWAY_OPS_HOST_PORT"]
    with urlopen(f"http://localhost:{port}/metrics", timeout=METRICS_SECONDS) as answer:
        return metrics_page.read(answer.read().decode()).histogram(
            "speech_gateway_loop_lag_seconds"
        )


def stop(stack, *services):
    """Stop services, or all, as a machine that is shut down would."""
    ended = stack.compose("stop", *services)
    assert ended.returncode == 0, ended.stderr


def start(stack, *services):
    """Start services, or all, and wait until they are healthy."""
    started = stack.compose("up", "--no-build", "--no-recreate", "--wait", *services)
    assert started.returncode == 0, started.stderr + stack.logs()


def kafka(stack, command):
    """Run one of Kafka's own tools in its container and return its lines."""
    answer = stack.container("kafka").exec_run(command.split())
    assert answer.exit_code == 0, answer.output.decode()
    return sorted(answer.output.decode().splitlines())


def commits(stack):
    """Return the committed offset of each partition that the recognisers read."""
    lines = kafka(stack, f"{GROUP} --describe --group asr-service --offsets")
    rows = [line.split() for line in lines if line.startswith("asr-service ")]
    offsets = {(topic, int(partition)): offset for _, topic, partition, offset, *_ in rows}
    assert offsets
    return offsets


def registered(stack):
    """Return the latest schema of each subject with its id."""
    subjects = ask(stack, "/subjects") or []  # some registries say null
    return {subject: ask(stack, f"/subjects/{subject}/versions/latest") for subject in subjects}


def keep_schemas(stack, before):
    """Check that the schemas are there; a registry that keeps them in memory gets them again."""
    now = registered(stack)
    assert now in (before, {})
    if not now:
        for each in sorted(before.values(), key=lambda schema: schema["id"]):
            ask(stack, f"/subjects/{each['subject']}/versions", {"schema": each["schema"]})
    assert registered(stack) == before


def ask(stack, path, body=None):
    """Return the registry's answer."""
    port = stack.ports["SCHEMA_REGISTRY_HOST_PORT"]
    request = Request(
        f"http://localhost:{port}{path}",
        data=json.dumps(body).encode() if body else None,
        headers={"Content-Type": "application/vnd.schemaregistry.v1+json"},
    )
    with urlopen(request, timeout=REGISTRY_SECONDS) as answer:  # noqa: S310 - the registry here
        return json.load(answer)
