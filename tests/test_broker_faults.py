"""A live gateway whose broker answers with errors: each with its documented answer, none hangs.

The errors are injected one by one into librdkafka's mock cluster. What a broker that is away means
is in `test_broker_away.py`; what is in Kafka's log afterwards in `delivery/`.
"""

import asyncio
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from confluent_kafka import KafkaError
from speech_lib.testing.mock_cluster import MockCluster
from speech_lib.testing.registry_server import RegistryServer
from speech_tools import stack
from speech_tools.protocol import audio, client
from support.operations import readiness
from support.waiting import until

pytestmark = [pytest.mark.pipeline, pytest.mark.timeout(60)]

PCM = audio.load(Path(__file__).parent.parent / "samples" / "go-forward-ten-meters.raw").pcm
TOPIC = "speech.audio.ingress"
PRODUCE = 0
DELIVERY_SECONDS = 1.0
IN_TIME_SECONDS = DELIVERY_SECONDS + 2
AT_ONCE_SECONDS = 1.0
"""Also where two cores are busy; nothing waits for a timeout in it."""
FOR_EVER = 500
"""More than librdkafka tries within the delivery timeout."""

REJECTED = {
    "status": "error",
    "code": "rejected_by_broker",
    "message": "the broker refuses this audio for good",
    "retryable": False,
    "stored": "no",
}
IN_DOUBT = {
    "status": "error",
    "code": "broker_unavailable",
    "message": "the audio could not be stored in time",
    "retryable": True,
    "stored": "unknown",
}
TRIED_AGAIN = [
    "NOT_LEADER_FOR_PARTITION",
    "LEADER_NOT_AVAILABLE",
    "NOT_ENOUGH_REPLICAS",
    "NOT_ENOUGH_REPLICAS_AFTER_APPEND",
    "REQUEST_TIMED_OUT",
    "KAFKA_STORAGE_ERROR",
    "UNKNOWN_TOPIC_OR_PART",
    "UNKNOWN_PRODUCER_ID",
    "INVALID_MSG",  # CORRUPT_MESSAGE: damaged on its way
    "BROKER_NOT_AVAILABLE",
    "REPLICA_NOT_AVAILABLE",
    "_TRANSPORT",  # the connection breaks instead of an answer
]
REFUSED = [
    "MSG_SIZE_TOO_LARGE",
    "RECORD_LIST_TOO_LARGE",
    "INVALID_RECORD",
    "INVALID_TIMESTAMP",
    "INVALID_REQUIRED_ACKS",
    "POLICY_VIOLATION",
    "UNSUPPORTED_FOR_MESSAGE_FORMAT",
    "TOPIC_EXCEPTION",
    "TOPIC_AUTHORIZATION_FAILED",
    "CLUSTER_AUTHORIZATION_FAILED",
]
DOUBTED = [
    "DUPLICATE_SEQUENCE_NUMBER",  # stored by an earlier try, nobody knows where
    "INVALID_PRODUCER_EPOCH",
    "NETWORK_EXCEPTION",
    "UNKNOWN",
]


@dataclass
class Gateway:
    """A gateway, its operations port, and the broker behind it."""

    cluster: MockCluster
    process: stack.Process
    url: str
    ops_port: int

    def speak(self) -> tuple[dict, int, float]:
        """Send one utterance; return the final message, the close code, and how long it took."""
        before = time.monotonic()
        outcome = asyncio.run(client.stream(self.url, PCM[:32_000], paced=False))
        took = time.monotonic() - before
        final = {key: value for key, value in outcome.final.items() if key != "correlation_id"}
        return final, outcome.close_code, took

    def heal(self) -> None:
        """End all faults, and wait until an utterance is accepted again."""
        self.cluster.clear_request_errors(PRODUCE)
        self.cluster.set_rtt(0)
        until(lambda: self.speak()[0]["status"] == "accepted", seconds=15)


@pytest.fixture(scope="module")
def running(tmp_path_factory) -> Iterator[Gateway]:
    """One gateway for all errors: it has to survive each of them."""
    with MockCluster() as cluster, RegistryServer() as registry:
        cluster.create_topic(TOPIC)
        env = {
            "KAFKA_BOOTSTRAP_SERVERS": cluster.bootstrap_servers,
            "SCHEMA_REGISTRY_URL": registry.url,
            **stack.MANY_FROM_ONE_ADDRESS,
            "DELIVERY_TIMEOUT_SECONDS": str(DELIVERY_SECONDS),
            "PORT": "0",
            "OPS_PORT": "0",
        }
        logs = tmp_path_factory.mktemp("logs")
        with stack.Process("gateway", "speech_gateway", env, logs) as process:
            listening = process.wait_for(event="listening")
            process.wait_for(event="ready")
            url = f"ws://127.0.0.1:{listening['port']}/ws/audio"
            yield Gateway(cluster, process, url, listening["ops_port"])


@pytest.fixture
def gateway(running) -> Iterator[Gateway]:
    """The gateway, healed before the next test."""
    yield running
    running.heal()


def inject(gateway: Gateway, name: str, times: int) -> None:
    gateway.cluster.push_request_errors(PRODUCE, *[getattr(KafkaError, name)] * times)


@pytest.mark.parametrize("name", TRIED_AGAIN)
def test_an_error_that_passes_is_not_seen(gateway, name):
    """Once, it is tried again, and the client knows nothing of it."""
    inject(gateway, name, 1)
    final, close_code, took = gateway.speak()
    assert (final["status"], final["ended_by"], close_code) == ("accepted", "done", 1000)
    assert took < IN_TIME_SECONDS


@pytest.mark.parametrize("name", TRIED_AGAIN)
def test_an_error_that_stays_is_told_in_time(gateway, name):
    """Each try was sent and may have been stored, so the answer admits not to know."""
    inject(gateway, name, FOR_EVER)
    final, close_code, took = gateway.speak()
    assert (final, close_code) == (IN_DOUBT, 1013)
    assert took < IN_TIME_SECONDS


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("times", [1, FOR_EVER], ids=["once", "for ever"])
def test_a_refusal_is_told_at_once(gateway, name, times):
    """What is refused whole is not tried again, by nobody."""
    inject(gateway, name, times)
    final, close_code, took = gateway.speak()
    assert (final, close_code) == (REJECTED, 1011)
    assert took < AT_ONCE_SECONDS


@pytest.mark.parametrize("name", REFUSED)
def test_a_refusal_after_another_try_admits_not_to_know(gateway, name):
    """What came of the first try nobody can tell, and the second one's refusal does not."""
    inject(gateway, "REQUEST_TIMED_OUT", 1)
    inject(gateway, name, 1)
    final, close_code, _ = gateway.speak()
    assert (final, close_code) == ({**REJECTED, "stored": "unknown"}, 1011)


@pytest.mark.parametrize("name", DOUBTED)
@pytest.mark.parametrize("times", [1, FOR_EVER], ids=["once", "for ever"])
def test_an_error_that_says_nothing_is_told_as_such(gateway, name, times):
    """It is not tried again, and nothing is known about the record."""
    inject(gateway, name, times)
    final, close_code, took = gateway.speak()
    assert (final, close_code) == (IN_DOUBT, 1013)
    assert took < IN_TIME_SECONDS


# Failing for good


def test_a_producer_that_fails_for_good_heals_by_itself(gateway):
    """Who waits is answered in 2 s, not ready in 1 s, and an utterance is accepted in 10 s."""
    gateway.cluster.set_rtt(300)  # so that all five are in flight when the first answer comes
    inject(gateway, "OUT_OF_ORDER_SEQUENCE_NUMBER", 1)

    async def speak() -> tuple[dict, float]:
        outcome = await client.stream(gateway.url, PCM[:32_000], paced=False)
        return {**outcome.final, "correlation_id": ""}, time.monotonic()

    async def scenario() -> tuple[list[tuple[dict, float]], float, dict]:
        speaking = [asyncio.ensure_future(speak()) for _ in range(5)]
        await asyncio.to_thread(until, lambda: readiness(gateway.ops_port)[0] == 503, seconds=5)
        not_ready_at = time.monotonic()
        return await asyncio.gather(*speaking), not_ready_at, readiness(gateway.ops_port)[1]

    answers, not_ready_at, told = asyncio.run(scenario())
    assert [final for final, _ in answers] == [{**IN_DOUBT, "correlation_id": ""}] * 5
    first, last = min(at for _, at in answers), max(at for _, at in answers)
    assert not_ready_at - first < 1
    assert last - first < 2
    assert told == {"status": "not_ready", "reasons": {"broker": "_FATAL"}}
    gateway.cluster.set_rtt(0)
    until(lambda: readiness(gateway.ops_port)[0] == 200, seconds=10)
    assert gateway.speak()[0]["status"] == "accepted"
    assert time.monotonic() - first < 10


def test_a_producer_that_fails_again_and_again_goes_on(gateway):
    """The thread that serves the producer survives each failure, and so does the service."""
    for _ in range(5):
        inject(gateway, "OUT_OF_ORDER_SEQUENCE_NUMBER", 1)
        final, close_code, took = gateway.speak()
        assert (final, close_code) == (IN_DOUBT, 1013)
        assert took < 2
        until(lambda: gateway.speak()[0]["status"] == "accepted", seconds=10)
    until(lambda: readiness(gateway.ops_port) == (200, {"status": "ready"}), seconds=5)


def test_a_permission_that_is_given_back_is_noticed(gateway):
    """Refused while it is missing, accepted within 5 s of its return, without anyone's help."""
    inject(gateway, "TOPIC_AUTHORIZATION_FAILED", FOR_EVER)
    assert [gateway.speak()[0] for _ in range(3)] == [REJECTED] * 3
    gateway.cluster.clear_request_errors(PRODUCE)
    until(lambda: gateway.speak()[0]["status"] == "accepted", seconds=5)
