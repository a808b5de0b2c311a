"""The stack stopped and started again: what was stored is there, and what was owed is done."""

import json
from urllib.request import Request, urlopen

import pytest

REGISTRY_SECONDS = 10
OFFSETS = "/opt/kafka/bin/kafka-get-offsets.sh --bootstrap-server localhost:9092"
GROUP = "/opt/kafka/bin/kafka-consumer-groups.sh --bootstrap-server localhost:9092"


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
        "go forward ten meters"
    ]
    assert [result["repeats"] for result in stack.transcribed(done)["results"]] == [0]


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
