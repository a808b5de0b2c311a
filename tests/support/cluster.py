"""The cluster of three brokers for `tests/faults`, and what can be done to one of them.

Used by the tests under faults. A fault is a context: entered, the broker is gone; left, it is back,
whatever happened in between.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import partial

from confluent_kafka import KafkaException
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # public, not re-exported
    AdminClient,
    PartitionMetadata,
)
from docker.models.containers import Container  # type: ignore[import-untyped]
from speech_lib.kafka.admin import TopicSpec, ensure_topics
from speech_lib.kafka.settings import KafkaSettings, client_logger

from support import compose
from support.toxiproxy import Toxiproxy
from support.waiting import until

FILES = ("docker-compose.yml", "tests/faults/docker-compose.cluster.yml")
PARTITIONS = 3
"""One for each broker. Of so few, the gateway keeps none for what one address sends in bulk."""
SERVICES = {1: "kafka", 2: "kafka-2", 3: "kafka-3"}
_PORTS = {1: "KAFKA_HOST_PORT", 2: "KAFKA_2_HOST_PORT", 3: "KAFKA_3_HOST_PORT"}
PUBLISHED = (
    *_PORTS.values(),
    "TOXIPROXY_HOST_PORT",
    "SCHEMA_REGISTRY_HOST_PORT",
    "GATEWAY_HOST_PORT",
    "GATEWAY_OPS_HOST_PORT",
    "ASR_OPS_HOST_PORT",
)
CHANGE_SECONDS = 60.0
"""Within which the others must have taken over, or a broker that is back must have caught up."""
_REQUEST_SECONDS = 5.0

Fault = Callable[[int], AbstractContextManager[None]]

_until = partial(until, seconds=CHANGE_SECONDS, every=0.3, despite=(KafkaException,))


@dataclass(frozen=True)
class Cluster:
    """Three brokers that run; the addresses are for the host."""

    project: compose.Project
    toxiproxy: Toxiproxy = field(init=False)

    def __post_init__(self) -> None:
        url = f"http://localhost:{self.project.ports['TOXIPROXY_HOST_PORT']}"
        object.__setattr__(self, "toxiproxy", Toxiproxy(url))

    @property
    def bootstrap_servers(self) -> str:
        """What `KAFKA_BOOTSTRAP_SERVERS` takes."""
        return self._servers(without=None)

    @property
    def registry_url(self) -> str:
        """What `SCHEMA_REGISTRY_URL` takes."""
        return f"http://localhost:{self.project.ports['SCHEMA_REGISTRY_HOST_PORT']}"

    @property
    def gateway_url(self) -> str:
        """Where the gateway in its container listens."""
        return f"ws://localhost:{self.project.ports['GATEWAY_HOST_PORT']}/ws/audio"

    @property
    def kafka(self) -> KafkaSettings:
        """How the host reaches the brokers, past all that is injured."""
        return KafkaSettings(bootstrap_servers=self.bootstrap_servers)

    def make_topics(self, *names: str) -> None:
        """Make topics as the pipeline's own one-shot does."""
        ensure_topics(self.kafka, [TopicSpec(name, partitions=PARTITIONS) for name in names])

    # What there is

    def leaders(self, topic: str, *, without: int | None = None) -> dict[int, int]:
        """Return which broker leads each partition, asking any broker but one."""
        return {each.id: each.leader for each in self._partitions(topic, without)}

    def busiest(self, topic: str) -> int:
        """Return the broker that leads most partitions of a topic."""
        leading = list(self.leaders(topic).values())
        return max(SERVICES, key=leading.count)

    def wait_until_replaced(self, topic: str, broker: int) -> None:
        """Return when others lead all partitions that a broker led.

        Raises:
            AssertionError: They do not in time.
        """
        others = set(SERVICES) - {broker}
        _until(lambda: set(self.leaders(topic, without=broker).values()) <= others)

    def wait_until_whole(self, topic: str) -> None:
        """Return when every partition is on all three brokers again.

        Raises:
            AssertionError: They are not in time.
        """
        _until(lambda: all(len(each.isrs) == len(SERVICES) for each in self._partitions(topic)))

    def _partitions(self, topic: str, without: int | None = None) -> list[PartitionMetadata]:
        admin = AdminClient(
            {"bootstrap.servers": self._servers(without=without)}, logger=client_logger("cluster")
        )
        found = admin.list_topics(topic, timeout=_REQUEST_SECONDS).topics[topic]
        if found.error is not None:
            raise KafkaException(found.error)
        return list(found.partitions.values())

    def _servers(self, *, without: int | None) -> str:
        ports = [self.project.ports[name] for of, name in _PORTS.items() if of != without]
        return ",".join(f"localhost:{port}" for port in ports)

    # What can be done to a broker

    @contextmanager
    def paused(self, broker: int) -> Iterator[None]:
        """Stop its processes: it accepts connections and answers nothing."""
        container = self._container(broker)
        container.pause()
        try:
            yield
        finally:
            container.unpause()

    @contextmanager
    def killed(self, broker: int) -> Iterator[None]:
        """End it by SIGKILL, then start it again on the same data."""
        container = self._container(broker)
        container.kill()
        try:
            yield
        finally:
            container.start()

    @contextmanager
    def cut_off(self, broker: int) -> Iterator[None]:
        """Take it off the network, from clients and from the other brokers."""
        network = self.project.client.networks.get(f"{self.project.name}_pipeline")
        container = self._container(broker)
        network.disconnect(container)
        try:
            yield
        finally:
            network.connect(container, aliases=[SERVICES[broker]])

    @contextmanager
    def answers_reset(self, broker: int) -> Iterator[None]:
        """Reset the gateway's connections to it."""
        with self.toxiproxy.answers_reset(gateway_proxy(broker)):
            yield

    @contextmanager
    def answers_swallowed(self, broker: int) -> Iterator[None]:
        """Let none of its answers come to the gateway."""
        with self.toxiproxy.answers_swallowed(gateway_proxy(broker)):
            yield

    def _container(self, broker: int) -> Container:
        return self.project.container(SERVICES[broker])


def gateway_proxy(broker: int) -> str:
    """Return the name of the proxy between the gateway and a broker."""
    return f"gateway-{broker}"


def host_proxy(broker: int) -> str:
    """Return the name of the proxy between the host and a broker."""
    return f"host-{broker}"
