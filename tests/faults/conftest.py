"""Three brokers in containers behind Toxiproxy, clients who speak meanwhile, and the reckoning.

The seed of every test is printed; FAULTS_SEED repeats one.
"""

import asyncio
import itertools
import os
import random
import signal
import socket
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.request import urlopen

import docker
import pytest
from speech_tools import stack
from support import compose, ledger, whole_topic
from support.cluster import FILES, PUBLISHED, Cluster
from support.crowd import Crowd
from support.ledger import Entry, Figures, Findings
from support.ports import free_ports
from support.waiting import until

TEST_SECONDS = 600
FULL_TEST_SECONDS = 1_800
AUDIO_TOPIC = "speech.audio.ingress"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what needs the cluster; a timeout must leave the way to the taking down open."""
    for item in items:
        if "cluster" in getattr(item, "fixturenames", ()) and Path(__file__).parent in (
            item.path.parents
        ):
            seconds = FULL_TEST_SECONDS if item.get_closest_marker("full") else TEST_SECONDS
            item.add_marker(pytest.mark.e2e)
            item.add_marker(pytest.mark.timeout(seconds, method="signal"))


@pytest.fixture(scope="package")
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """Return the cluster with a gateway, healthy."""
    if reason := compose.missing():
        pytest.skip(reason)
    client = docker.from_env(timeout=60)
    project = compose.Project(client, FILES, free_ports(PUBLISHED))
    failed = request.session.testsfailed
    try:
        with compose.running(project, "gateway-service"):
            yield Cluster(project)
            if request.session.testsfailed > failed:
                request.config.get_terminal_writer().write(project.logs())
    finally:
        client.close()


@pytest.fixture
def topics(cluster) -> dict[str, str]:
    """Topics of one test, under the variables that name them."""
    names = {
        variable: f"{variable.lower()}-{uuid.uuid4().hex[:8]}"
        for variable in ("TOPIC_AUDIO_INGRESS", "TOPIC_ASR_TEXT", "TOPIC_DEAD_LETTER")
    }
    cluster.make_topics(*names.values())
    return names


@pytest.fixture
def chance() -> random.Random:
    """Return what decides on everything random in one test."""
    seed = int(os.environ.get("FAULTS_SEED") or random.SystemRandom().getrandbits(32))
    print(f"FAULTS_SEED={seed}")  # noqa: T201  # shown where the test fails
    return random.Random(seed)  # noqa: S311


Inject = Callable[[], None]


@pytest.fixture
def meanwhile() -> Callable[[Crowd, Inject], None]:
    """Return `meanwhile(crowd, inject)`: the crowd speaks while `inject` runs in a thread."""

    async def speak(crowd: Crowd, inject: Inject) -> None:
        speaking = asyncio.create_task(crowd.speak())
        try:
            await asyncio.to_thread(inject)
        finally:
            crowd.stop()
            await speaking

    return lambda crowd, inject: asyncio.run(speak(crowd, inject))


Reckon = Callable[..., tuple[Findings, Figures]]


@pytest.fixture
def reckon(cluster) -> Reckon:
    """Return `reckon(operations, topic)`, which reads the topic whole, and judges.

    Records of the correlation ids in `others` are left out.
    """

    def reckon(operations, topic, *, others=frozenset()) -> tuple[Findings, Figures]:
        entries = [
            entry
            for record in whole_topic.read(cluster.kafka, topic)
            if (entry := Entry.of(record)).correlation_id not in others
        ]
        figures = ledger.figures(operations, entries)
        print(f"{topic}: {len(entries)} records; {figures}")  # noqa: T201
        return ledger.audit(operations, entries), figures

    return reckon


@pytest.fixture
def earlier(cluster) -> frozenset[str]:
    """Return whose records are on the gateway's topic already."""
    return frozenset(record.key.decode() for record in whole_topic.read(cluster.kafka, AUDIO_TOPIC))


# The gateway as a process beside the cluster


@dataclass(frozen=True)
class Running:
    """A gateway that is ready."""

    process: stack.Process
    port: int
    ops_port: int

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/ws/audio"

    def wait(self, seconds: float) -> int:
        return self.process.wait(seconds)

    def signal(self, number: signal.Signals) -> None:
        self.process.signal(number)


@pytest.fixture
def start_gateway(cluster, topics, tmp_path) -> Callable[..., AbstractContextManager[Running]]:
    """Return `start_gateway(**settings)`: a context with a gateway on the test's topics."""
    numbers = itertools.count()

    @contextmanager
    def start(**settings: str) -> Iterator[Running]:
        env = {
            "KAFKA_BOOTSTRAP_SERVERS": cluster.bootstrap_servers,
            "SCHEMA_REGISTRY_URL": cluster.registry_url,
            "PORT": "0",
            "OPS_PORT": "0",
            **stack.MANY_FROM_ONE_ADDRESS,
            **topics,
            **settings,
        }
        name = f"gateway-{next(numbers)}"
        with stack.Process(name, "speech_gateway", env, tmp_path) as process:
            listening = process.wait_for(event="listening")
            process.wait_for(event="ready")
            yield Running(process, listening["port"], listening["ops_port"])

    return start


@pytest.fixture
def gateway_port() -> int:
    """Return a port for a gateway that comes and goes.

    Below those that the kernel gives to connections: a client that tries a port of its own kind
    while nobody listens may get it itself.
    """
    for port in random.SystemRandom().sample(range(20_000, 30_000), 100):
        with socket.socket() as listener, suppress(OSError):
            listener.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no free port")


@pytest.fixture
def ready(cluster) -> None:
    """Wait until the gateway in its container is ready."""
    port = cluster.project.ports["GATEWAY_OPS_HOST_PORT"]
    url = f"http://localhost:{port}/readyz"
    until(lambda: urlopen(url, timeout=5), seconds=30, despite=(OSError,)).close()
