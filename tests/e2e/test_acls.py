"""Least privileges: the pipeline on a broker that permits just what docs/security.md lists."""

import json
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from support.acls import acls
from support.waiting import until
from websockets.sync.client import connect

FILES = ("docker-compose.yml", "tests/e2e/docker-compose.acls.yml")
PASSWORD = secrets.token_urlsafe(16)
AUDIO, TEXT = "speech.audio.ingress", "speech.asr.text"
GATEWAY = "gateway-service"
CHUNK_BYTES = 32_000
ANSWER_SECONDS = 30

# In a container beside the broker: CALL AS-USER JSON-ARGUMENTS; prints its result as JSON.
CLIENT = """
import json, os, sys
from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition
from confluent_kafka.admin import (
    AclBinding, AclBindingFilter, AclOperation, AclPermissionType, AdminClient,
    ResourcePatternType, ResourceType,
)
call, user, arguments = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
config = {
    "bootstrap.servers": "kafka:9092", "security.protocol": "SASL_PLAINTEXT",
    "sasl.mechanism": "PLAIN", "sasl.username": user,
    "sasl.password": os.environ["KAFKA_SASL_PASSWORD"],
}

def binding(kind, user, resource, name, operation):
    return kind(
        ResourceType[resource.upper()], name, ResourcePatternType.LITERAL, f"User:{user}", "*",
        AclOperation[operation], AclPermissionType.ALLOW,
    )

def permit(acls):
    admin = AdminClient(config)
    answers = admin.create_acls([binding(AclBinding, *acl) for acl in acls])
    return [answer.result(20) for answer in answers.values()]

def forbid(acls):
    admin = AdminClient(config)
    answers = admin.delete_acls([binding(AclBindingFilter, *acl) for acl in acls])
    return sum(len(answer.result(20)) for answer in answers.values())

def read(topic):
    consumer = Consumer(config | {"group.id": "asr-service", "enable.auto.commit": False})
    if hidden := consumer.list_topics(topic, 20).topics[topic].error:
        return hidden.name()
    consumer.assign([TopicPartition(topic, part, 0) for part in range(6)])
    while True:
        message = consumer.poll(20)
        if message is None:
            return "nothing"
        if message.error() is None:
            return "a record"
        # Partitions can be read without the group: that one is not permitted says too little.
        if message.error().code() != KafkaError.GROUP_AUTHORIZATION_FAILED:
            return message.error().name()

def write(topic):
    told = []
    producer = Producer(config | {"message.timeout.ms": 20000})
    try:
        producer.produce(topic, b"x", on_delivery=lambda error, _: told.append(error))
        producer.flush(25)
    except Exception as error:
        return str(error)
    (error,) = told
    return "stored" if error is None else error.name()

print(json.dumps(globals()[call](arguments)))
"""


def client(stack: Any, call: str, user: str, arguments: object) -> Any:
    """Call a function of `CLIENT` in a container on the broker's network."""
    command = ["python", "-c", CLIENT, call, user, json.dumps(arguments)]
    said = stack.client.containers.get(f"{stack.name}-client").exec_run(command, demux=True)
    out, complaints = said.output
    assert said.exit_code == 0, complaints
    return json.loads(out)


@pytest.fixture(scope="module")
def guarded(bring_up) -> Iterator[Any]:
    """Return the pipeline, each service with its own user and the ACLs of the document."""
    stack = bring_up(
        "kafka",
        files=FILES,
        published=("GATEWAY_HOST_PORT",),
        settings={"ACL_PASSWORD": PASSWORD},
    )
    built = stack.compose("build", "topics")
    assert built.returncode == 0, built.stderr
    name = f"{stack.name}-client"
    stack.compose("run", "--detach", "--no-deps", "--name", name, "topics", "sleep", "infinity")
    try:
        client(stack, "permit", "admin", acls())
        stack.up("gateway-service", "asr-service")
        yield stack
    finally:
        stack.client.containers.get(name).remove(force=True)


def spoken(stack: Any, pcm: bytes) -> dict[str, Any]:
    """Speak one utterance; return the gateway's final message."""
    url = f"ws://localhost:{stack.ports['GATEWAY_HOST_PORT']}/ws/audio"
    with connect(url, compression=None) as gateway:
        gateway.recv(ANSWER_SECONDS)
        for begin in range(0, len(pcm), CHUNK_BYTES):
            gateway.send(pcm[begin : begin + CHUNK_BYTES])
        gateway.send('{"event":"done"}')
        return json.loads(gateway.recv(ANSWER_SECONDS))


def settled(stack: Any, pcm: bytes, status: str) -> dict[str, Any]:
    """Speak until the answer has a status: a broker learns of an ACL just after it is set."""
    return until(
        lambda: spoken(stack, pcm),
        lambda final: final["status"] == status,
        seconds=ANSWER_SECONDS,
        every=0.5,
    )


@contextmanager
def without(stack: Any, *taken: tuple[str, str, str, str]) -> Iterator[None]:
    """Take ACLs away, and give them back."""
    assert client(stack, "forbid", "admin", taken) == len(taken)
    try:
        yield
    finally:
        client(stack, "permit", "admin", taken)


def test_the_pipeline_works_with_these_acls(guarded, speech):
    """What is spoken is stored by the gateway's user, and read and answered by the recogniser's."""
    accepted = spoken(guarded, speech.read_bytes())
    assert (accepted["status"], accepted["topic"]) == ("accepted", AUDIO)
    assert client(guarded, "read", "admin", TEXT) == "a record"


@pytest.mark.parametrize(
    ("user", "topic", "told"),
    [
        ("gateway", AUDIO, "TOPIC_AUTHORIZATION_FAILED"),
        ("gateway", TEXT, "TOPIC_AUTHORIZATION_FAILED"),
        ("topics", AUDIO, "TOPIC_AUTHORIZATION_FAILED"),
        ("asr", TEXT, "TOPIC_AUTHORIZATION_FAILED"),
        ("asr", AUDIO, "a record"),
    ],
)
def test_only_the_recogniser_reads_what_people_say(guarded, speech, user, topic, told):
    """The gateway cannot read, the recogniser reads audio alone."""
    assert spoken(guarded, speech.read_bytes())["status"] == "accepted"
    assert client(guarded, "read", user, topic) == told


@pytest.mark.parametrize(
    ("user", "topic"),
    [("gateway", TEXT), ("gateway", f"{AUDIO}.dlq"), ("asr", AUDIO), ("topics", AUDIO)],
)
def test_nobody_writes_where_it_has_nothing_to_say(guarded, user, topic):
    """The gateway cannot forge a text, the recogniser no audio, the one-shot neither."""
    assert client(guarded, "write", user, topic) == "TOPIC_AUTHORIZATION_FAILED"


def test_a_topic_that_may_not_be_written_is_rejected_by_the_broker(guarded, speech):
    """A gateway whose right is taken away says that the utterance is not stored, for good."""
    acl = ("gateway", "topic", AUDIO, "WRITE")
    with without(guarded, acl):
        error = settled(guarded, speech.read_bytes(), "error")
    assert {name: error[name] for name in ("status", "code", "retryable", "stored")} == {
        "status": "error",
        "code": "rejected_by_broker",
        "retryable": False,
        "stored": "no",
    }
    assert settled(guarded, speech.read_bytes(), "accepted")["status"] == "accepted"


@pytest.mark.parametrize(
    ("service", "taken"),
    [
        ("gateway-service", [("gateway", "topic", AUDIO, each) for each in ("WRITE", "DESCRIBE")]),
        ("asr-service", [("asr", "topic", TEXT, each) for each in ("WRITE", "DESCRIBE")]),
        ("topics", [("topics", "topic", TEXT, each) for each in ("CREATE", "ALTER_CONFIGS")]),
    ],
)
def test_a_start_without_acls_ends_with_one_line(guarded, service, taken):
    """It is said which topic may not be used, without the user's name; the exit code is 3."""
    with without(guarded, *taken):
        done = guarded.compose("run", "--rm", "--no-deps", "--no-TTY", service)
    assert done.returncode == 3
    (line,) = [each for each in done.stderr.splitlines() if "AUTHORIZATION" in each]
    assert taken[0][2] in line
    assert PASSWORD not in done.stdout + done.stderr


@contextmanager
def sending_results(stack: Any) -> Iterator[None]:
    """Run the gateway with `RESULTS=on`, and afterwards as it was."""
    stack.settings["RESULTS"] = "on"
    try:
        yield
    finally:
        del stack.settings["RESULTS"]
        stack.up("gateway-service")


def test_the_text_comes_back_with_two_rights_more(guarded, speech):
    """Without them a gateway with `RESULTS=on` never becomes ready; with them clients get texts."""
    with sending_results(guarded):
        refused = guarded.compose("up", "--detach", "--wait", "--wait-timeout", "15", GATEWAY)
        logs = guarded.compose("logs", "--no-color", "--tail", "20", GATEWAY).stdout
        assert refused.returncode != 0, logs
        client(guarded, "permit", "admin", acls("acls of results"))
        guarded.up(GATEWAY)
        url = f"ws://localhost:{guarded.ports['GATEWAY_HOST_PORT']}/ws/audio?results=text"
        with connect(url, compression=None) as gateway:
            gateway.recv(ANSWER_SECONDS)
            gateway.send(speech.read_bytes()[:CHUNK_BYTES])
            gateway.send('{"event":"done"}')
            answers = [json.loads(gateway.recv(ANSWER_SECONDS))["status"] for _ in range(2)]
        client(guarded, "forbid", "admin", acls("acls of results"))
    assert answers == ["accepted", "recognized"]


def test_the_password_is_in_no_log(guarded):
    """Neither of a service nor of the broker."""
    said = guarded.compose("logs", "--no-color").stdout
    assert '"event": "ready"' in said
    assert PASSWORD not in said
