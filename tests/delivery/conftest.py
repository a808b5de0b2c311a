"""Apache Kafka in a container of its own, with a proxy before it that does harm, and a gateway.

What the producer and the gateway say of a record is compared with Kafka's log, whatever happens in
between; containers are removed in the end.
"""

import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import docker
import pytest
from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourcePatternType,
    ResourceType,
)
from docker.models.containers import Container
from pydantic import SecretStr
from speech_lib.errors import BrokerUnavailable
from speech_lib.kafka.admin import TopicSpec, ensure_topics
from speech_lib.kafka.settings import KafkaSettings, SaslCredentials
from speech_lib.testing.registry_server import RegistryServer
from speech_tools import stack
from support import compose, whole_topic
from support.ports import free_ports
from support.proxy import Proxy
from support.waiting import until

ADMIN_SECONDS = 20.0
TEST_SECONDS = 300
USER, PASSWORD = "gateway", "not-a-secret"
Right = tuple[ResourceType, str, AclOperation]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what needs the container."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.e2e)
            if item.get_closest_marker("timeout") is None:
                item.add_marker(pytest.mark.timeout(TEST_SECONDS))


@dataclass(frozen=True)
class Kafka:
    """Apache Kafka with a listener behind the proxy, one without, and one that asks who is there.

    Attributes:
        proxied, direct, guarded: How a client reaches it.
    """

    container: Container
    proxy: Proxy
    proxied: KafkaSettings
    direct: KafkaSettings
    guarded: KafkaSettings

    def make_topic(self) -> str:
        """Make a topic of one partition, and return its name."""
        topic = f"t-{uuid.uuid4().hex[:12]}"
        ensure_topics(self.direct, [TopicSpec(topic, partitions=1)], ADMIN_SECONDS)
        return topic

    def limit_records(self, topic: str, size: int) -> None:
        """Have the broker refuse records of more bytes, from now on."""
        admin = AdminClient(self.direct.client_config())
        entry = ConfigEntry(
            "max.message.bytes", str(size), incremental_operation=AlterConfigOpType.SET
        )
        resource = ConfigResource(ConfigResource.Type.TOPIC, topic, incremental_configs=[entry])
        for answer in admin.incremental_alter_configs([resource]).values():
            answer.result(ADMIN_SECONDS)

    def log(self, topic: str) -> dict[int, str]:
        """Return the keys that a topic holds, by offset."""
        records = whole_topic.read(self.direct, topic)
        return {record.offset: record.key.decode() for record in records}

    def give(self, *rights: Right) -> None:
        """Let the guarded client do something."""
        rules = [AclBinding(*_rule(right)) for right in rights]
        admin = AdminClient(self.direct.client_config())  # as long as it is asked
        [answer.result(ADMIN_SECONDS) for answer in admin.create_acls(rules).values()]

    def take(self, right: Right) -> None:
        """Let it do so no longer."""
        rules = [AclBindingFilter(*_rule(right))]
        admin = AdminClient(self.direct.client_config())
        (answer,) = admin.delete_acls(rules).values()
        assert len(answer.result(ADMIN_SECONDS)) == 1

    @contextmanager
    def permission(self, topic: str, operation: AclOperation) -> Iterator[None]:
        """Let the guarded client do something to a topic, for a while."""
        right = (ResourceType.TOPIC, topic, operation)
        self.give(right)
        yield
        self.take(right)


def _rule(right: Right) -> tuple:
    kind, name, operation = right
    literal, allow = ResourcePatternType.LITERAL, AclPermissionType.ALLOW
    return kind, name, literal, f"User:{USER}", "*", operation, allow


def environment(ports: Mapping[str, int], proxy_port: int) -> dict[str, str]:
    """Return the settings of a broker on these ports of the host."""
    accounts = (
        "org.apache.kafka.common.security.plain.PlainLoginModule required "
        f'user_{USER}="{PASSWORD}";'
    )
    return {
        "KAFKA_NODE_ID": "1",
        "KAFKA_PROCESS_ROLES": "broker,controller",
        "KAFKA_CONTROLLER_QUORUM_VOTERS": "1@localhost:9093",
        "KAFKA_CONTROLLER_LISTENER_NAMES": "CONTROLLER",
        "KAFKA_INTER_BROKER_LISTENER_NAME": "DIRECT",
        "KAFKA_LISTENERS": "DIRECT://:9092,CONTROLLER://:9093,PROXIED://:9094,GUARDED://:9095",
        "KAFKA_ADVERTISED_LISTENERS": f"DIRECT://127.0.0.1:{ports['direct']},"
        f"PROXIED://127.0.0.1:{proxy_port},GUARDED://127.0.0.1:{ports['guarded']}",
        "KAFKA_LISTENER_SECURITY_PROTOCOL_MAP": "DIRECT:PLAINTEXT,CONTROLLER:PLAINTEXT,"
        "PROXIED:PLAINTEXT,GUARDED:SASL_PLAINTEXT",
        "KAFKA_SASL_ENABLED_MECHANISMS": "PLAIN",
        "KAFKA_LISTENER_NAME_GUARDED_PLAIN_SASL_JAAS_CONFIG": accounts,
        "KAFKA_AUTHORIZER_CLASS_NAME": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "KAFKA_SUPER_USERS": "User:ANONYMOUS",
        "KAFKA_AUTO_CREATE_TOPICS_ENABLE": "false",
        "KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR": "1",
        "KAFKA_HEAP_OPTS": "-Xms256m -Xmx512m",
    }


@pytest.fixture(scope="package")
def kafka() -> Iterator[Kafka]:
    if reason := compose.missing():
        pytest.skip(reason)
    ports = free_ports(["direct", "guarded", "target"])
    with ExitStack() as stack_of:
        proxy = Proxy(target=ports["target"])
        stack_of.callback(proxy.close)
        docker_client = docker.from_env(timeout=60)
        stack_of.callback(docker_client.close)
        container = docker_client.containers.run(
            compose.image("kafka"),
            name=f"fault-kafka-{uuid.uuid4().hex[:8]}",
            detach=True,
            environment=environment(ports, proxy.port),
            ports={
                "9092/tcp": ("127.0.0.1", ports["direct"]),
                "9094/tcp": ("127.0.0.1", ports["target"]),
                "9095/tcp": ("127.0.0.1", ports["guarded"]),
            },
            mem_limit="1g",
        )
        stack_of.callback(container.remove, force=True, v=True)
        direct = KafkaSettings(bootstrap_servers=f"127.0.0.1:{ports['direct']}")
        attempt = partial(ensure_topics, direct, [TopicSpec("up", partitions=1)], 5.0)
        until(attempt, lambda _: True, seconds=90, despite=(BrokerUnavailable,))
        yield Kafka(
            container,
            proxy,
            KafkaSettings(bootstrap_servers=f"127.0.0.1:{proxy.port}"),
            direct,
            KafkaSettings(
                bootstrap_servers=f"127.0.0.1:{ports['guarded']}",
                sasl=SaslCredentials(
                    mechanism="PLAIN", username=USER, password=SecretStr(PASSWORD)
                ),
            ),
        )


@pytest.fixture
def start(kafka, tmp_path) -> Iterator[Callable[..., stack.Process]]:
    """Start a gateway that has to show its password, with some topic."""
    with ExitStack() as running:
        registry = running.enter_context(RegistryServer())

        def start(topic: str, **settings: str) -> stack.Process:
            env = {
                "KAFKA_BOOTSTRAP_SERVERS": kafka.guarded.bootstrap_servers,
                "KAFKA_SECURITY_PROTOCOL": "SASL_PLAINTEXT",
                "KAFKA_SASL_MECHANISM": "PLAIN",
                "KAFKA_SASL_USERNAME": USER,
                "KAFKA_SASL_PASSWORD": PASSWORD,
                "SCHEMA_REGISTRY_URL": registry.url,
                "TOPIC_AUDIO_INGRESS": topic,
                "PORT": "0",
                "OPS_PORT": "0",
                **settings,
            }
            process = stack.Process("gateway", "speech_gateway", env, tmp_path)
            return running.enter_context(process)

        yield start
