"""Each service from its start to its end: what it waits for, what it refuses, how it is stopped."""

import asyncio
import json
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from speech_lib.kafka.registry import SchemaRegistry, subject_of
from speech_lib.testing.mock_cluster import MockCluster
from speech_lib.testing.registry_server import RegistryServer
from speech_tools import stack
from speech_tools.protocol import audio, client
from support.operations import page, readiness
from support.ports import free_ports
from websockets.asyncio.client import ClientConnection, connect

pytestmark = [pytest.mark.pipeline, pytest.mark.timeout(60)]

MODULES = {"gateway": "speech_gateway", "asr": "speech_asr"}
WRITES = {"gateway": "speech.audio.ingress", "asr": "speech.asr.text"}
TOPICS = ["speech.audio.ingress", "speech.asr.text", "speech.audio.ingress.dlq"]
READY_WITHIN_SECONDS = 15.0
"""It takes about one, where the machine has no other work."""
PCM = audio.load(Path(__file__).parent.parent / "samples" / "go-forward-ten-meters.raw").pcm
PRODUCE = 0
TOPIC_AUTHORIZATION_FAILED = 29

both = pytest.mark.parametrize("service", MODULES)


@pytest.fixture
def cluster() -> Iterator[MockCluster]:
    with MockCluster() as cluster:
        for topic in TOPICS:
            cluster.create_topic(topic)
        yield cluster


@pytest.fixture
def registry() -> Iterator[RegistryServer]:
    with RegistryServer() as registry:
        yield registry


Start = Callable[..., stack.Process]


@pytest.fixture
def start(cluster, registry, tmp_path) -> Iterator[Start]:
    """Start a service by name; further settings are environment variables."""
    with ExitStack() as processes:

        def start(service: str, **settings: str) -> stack.Process:
            env = {
                "KAFKA_BOOTSTRAP_SERVERS": cluster.bootstrap_servers,
                "SCHEMA_REGISTRY_URL": registry.url,
                "PORT": "0",
                "OPS_PORT": "0",
                "ASR_WORKERS": "1",
                "ASR_ENGINE": "pocketsphinx",
                **settings,
            }
            process = stack.Process(service, MODULES[service], env, tmp_path)
            return processes.enter_context(process)

        yield start


def log_of(tmp_path: Path, service: str) -> str:
    return (tmp_path / f"{service}.log").read_text()


# Waiting


@both
def test_broker_that_comes_late_is_waited_for(service, start, cluster, tmp_path):
    """The service says why it is not ready, and is ready soon after its broker."""
    cluster.set_broker_down()
    process = start(service)
    ops_port = process.wait_for(event="listening")["ops_port"]
    process.wait_for(event="waiting", what="broker")
    assert page(ops_port, "/livez")[0] == 200
    status, body = readiness(ops_port)
    assert (status, body["status"]) == (503, "not_ready")
    assert "broker" in body["reasons"]
    cluster.set_broker_up()
    came = time.monotonic()
    process.wait_for(event="ready")
    assert time.monotonic() - came < READY_WITHIN_SECONDS
    assert readiness(ops_port) == (200, {"status": "ready"})
    assert_quiet(log_of(tmp_path, service), cluster.bootstrap_servers)


@both
def test_registry_that_comes_late_is_waited_for(service, start, tmp_path):
    """The service waits for the registry too, and is ready soon after it."""
    port = free_ports(["port"])["port"]
    process = start(service, SCHEMA_REGISTRY_URL=f"http://127.0.0.1:{port}")
    ops_port = process.wait_for(event="listening")["ops_port"]
    process.wait_for(event="waiting", what="schema")
    assert readiness(ops_port)[1]["reasons"].keys() >= {"schema"}
    with RegistryServer(port):
        came = time.monotonic()
        process.wait_for(event="ready")
        assert time.monotonic() - came < READY_WITHIN_SECONDS
    assert_quiet(log_of(tmp_path, service), f"127.0.0.1:{port}")


def assert_quiet(log: str, address: str) -> None:
    """Assert that a log is JSON lines without the address, and one line an attempt at most."""
    lines = [json.loads(line) for line in log.splitlines()]
    assert address not in log
    waits = [line["attempt"] for line in lines if line["event"] == "waiting"]
    assert len(waits) == len(set(waits))


def test_clients_that_come_too_early_are_told_to_try_again(start, cluster):
    """Until it has been ready for the first time the gateway refuses with `not_ready`."""
    cluster.set_broker_down()
    process = start("gateway")
    port = process.wait_for(event="listening")["port"]
    with pytest.raises(client.Refused, match="503 not_ready"):
        asyncio.run(client.stream(f"ws://127.0.0.1:{port}/ws/audio", PCM, paced=False))


# Refusing


@both
def test_schema_that_the_registry_refuses_ends_the_service(service, start, registry, tmp_path):
    """A schema that does not fit what is registered: one line, exit code 3."""
    other = SchemaRegistry(registry.url)
    other.register(subject_of(WRITES[service]), '"string"')
    other.close()
    ended = end_of(start(service))
    assert ended == 3
    last = log_of(tmp_path, service).splitlines()[-1]
    subject = f"{WRITES[service]}-value"
    assert last == f"{service}: the registry refuses the schema of {subject} (HTTP 409)"


@both
def test_schema_that_is_only_looked_up_must_be_there(service, start, tmp_path):
    """With SCHEMA_AUTO_REGISTER=false nothing is registered: one line, exit code 3."""
    ended = end_of(start(service, SCHEMA_AUTO_REGISTER="false"))
    assert ended == 3
    last = log_of(tmp_path, service).splitlines()[-1]
    assert last.startswith(f"{service}: the registry does not know the schema of ")


@both
def test_wrong_settings_are_all_named_in_one_line(service, start, cluster, tmp_path):
    """Every wrong variable is named with what it takes, no address is told; exit code 2."""
    wrong = {"OPS_PORT": "70000", "SCHEMA_REGISTRY_URL": "secret.example", "LOG_LEVEL": "LOUD"}
    assert end_of(start(service, **wrong)) == 2
    log = log_of(tmp_path, service)
    assert len(log.splitlines()) == 1
    assert all(name in log for name in wrong)
    assert "secret.example" not in log


@both
def test_port_that_is_taken_ends_the_service(service, start, tmp_path):
    """An operations port in use: one line that names the variables, exit code 2."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert end_of(start(service, OPS_PORT=str(taken.getsockname()[1]))) == 2
    assert "OPS_PORT" in log_of(tmp_path, service).splitlines()[-1]


def end_of(process: stack.Process) -> int:
    """Return the exit code of a process that ends by itself."""
    with pytest.raises(stack.StackError, match="ended with code"):
        process.wait_for(event="never")
    return process.stop()


def test_topic_that_may_not_be_written_is_an_answer_to_the_client(start, cluster):
    """The client is told `rejected_by_broker` and 1011: the same again would be refused again.

    And that it is not stored, which only a quick refusal says: one of five is, on any machine.
    """
    process = start("gateway")
    port = process.wait_for(event="listening")["port"]
    process.wait_for(event="ready")
    cluster.push_request_errors(PRODUCE, *[TOPIC_AUTHORIZATION_FAILED] * 20)
    url = f"ws://127.0.0.1:{port}/ws/audio"
    outcomes = [asyncio.run(client.stream(url, PCM, paced=False)) for _ in range(5)]
    told = {(one.final["code"], one.final["retryable"], one.close_code) for one in outcomes}
    assert told == {("rejected_by_broker", False, 1011)}
    assert "no" in {one.final["stored"] for one in outcomes}


def test_registry_that_goes_away_later_disturbs_nobody(start, cluster):
    """A gateway that knows its schema needs the registry no more."""
    with RegistryServer() as leaving:
        process = start("gateway", SCHEMA_REGISTRY_URL=leaving.url)
        listening = process.wait_for(event="listening")
        process.wait_for(event="ready")
    url = f"ws://127.0.0.1:{listening['port']}/ws/audio"
    outcome = asyncio.run(client.stream(url, PCM, paced=False))
    assert outcome.final["status"] == "accepted"
    assert readiness(listening["ops_port"])[0] == 200


# Stopping


async def greeted(port: int) -> ClientConnection:
    connection = await connect(f"ws://127.0.0.1:{port}/ws/audio", compression=None)
    assert json.loads(await connection.recv())["status"] == "connected"
    return connection


def test_sigterm_lets_who_speaks_end_in_time(start):
    """Told of the drain, a client ends its utterance, gets its receipt, and the process exits 0."""
    process = start("gateway")
    port = process.wait_for(event="listening")["port"]
    process.wait_for(event="ready")

    async def scenario() -> list[dict]:
        async with await greeted(port) as connection:
            await connection.send(PCM[:3200])
            process.signal(signal.SIGTERM)
            draining = json.loads(await connection.recv())
            with pytest.raises(client.Refused, match="503 draining"):
                await client.stream(f"ws://127.0.0.1:{port}/ws/audio", PCM, paced=False)
            await connection.send('{"event": "done"}')
            return [draining, json.loads(await connection.recv())]

    draining, final = asyncio.run(scenario())
    assert (draining["status"], 19_000 < draining["deadline_ms"] <= 20_000) == ("draining", True)
    assert (final["status"], final["ended_by"]) == ("accepted", "done")
    assert end_of(process) == 0


def test_second_sigterm_ends_the_drain_now(start):
    """What has been sent by then is published, and answered with 1001."""
    process = start("gateway")
    port = process.wait_for(event="listening")["port"]
    process.wait_for(event="ready")

    async def scenario() -> tuple[dict, int | None]:
        async with await greeted(port) as connection:
            await connection.send(PCM[:3200])
            process.signal(signal.SIGTERM)
            assert json.loads(await connection.recv())["status"] == "draining"
            process.signal(signal.SIGTERM)
            final = json.loads(await connection.recv())
            await connection.wait_closed()
            return final, connection.close_code

    final, code = asyncio.run(scenario())
    assert (final["ended_by"], final["audio_bytes"], code) == ("shutting_down", 3200, 1001)
    assert end_of(process) == 0


@both
def test_sigterm_while_waiting_is_obeyed(service, start, cluster):
    """A service that is still waiting for its broker stops when asked, with 0."""
    cluster.set_broker_down()
    process = start(service)
    process.wait_for(event="waiting")
    process.signal(signal.SIGTERM)
    assert end_of(process) == 0
