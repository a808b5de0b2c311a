"""Make topics with the sizes and retention that the services rely on.

`speech_lib.topics`, the one-shot of deployments, calls `ensure_topics`. So do tests and tools.
Brokers make no topic by themselves: one made by an early client would refuse long utterances.
"""

from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # public, not re-exported
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewTopic,
    ResourceType,
)
from tenacity import RetryError, Retrying, retry_if_result, stop_after_delay, wait_fixed

from speech_lib.errors import BrokerUnavailable, TopicMissing
from speech_lib.kafka.settings import MAX_RECORD_BYTES, KafkaSettings, client_logger

HOUR_MS = 60 * 60 * 1000
DAY_MS = 24 * HOUR_MS
_SEGMENTS_KEPT = 8
_MAX_SEGMENT_BYTES = 1024**3
"""Kafka's default for `segment.bytes`."""
_DEFAULT_OF_BROKER = -1

_FORBIDDEN = frozenset(
    {
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
        KafkaError.POLICY_VIOLATION,
        KafkaError.INVALID_CONFIG,
        KafkaError.TOPIC_EXCEPTION,  # not a valid name
    }
)
"""Errors that asking again does not end."""


@dataclass(frozen=True, slots=True)
class TopicSpec:
    """A topic as it should be.

    Attributes:
        name: The topic's name.
        retention_ms: Milliseconds for which records are kept; voice is personal.
        partitions: The most consumers of a group that can share it. A topic that exists keeps its
            number, because more partitions would break the order of keys.
        retention_bytes: The bytes that each partition keeps at most, a segment aside. The oldest
            records go first, however young they are. None leaves an existing topic as it is.
        uncompressed: Whether the broker unpacks what it is sent, and so refuses a record that is
            too large once unpacked. Otherwise it would take the memory of a reader.
    """

    name: str
    retention_ms: int = DAY_MS
    partitions: int = 6
    retention_bytes: int | None = None
    uncompressed: bool = False

    def config(self) -> dict[str, str]:
        """Return the topic's configuration at the broker."""
        return {
            "max.message.bytes": str(MAX_RECORD_BYTES),
            "retention.ms": str(self.retention_ms),
            # Kafka deletes whole segments, never single records. With its default of a week a
            # segment, what people said would be kept for up to a week longer.
            "segment.ms": str(HOUR_MS),
            "cleanup.policy": "delete",
            **({"compression.type": "uncompressed"} if self.uncompressed else {}),
            **self._bounded_by_size(),
        }

    def _bounded_by_size(self) -> dict[str, str]:
        if self.retention_bytes is None:
            return {}
        # The newest segment is never deleted. At Kafka's default size it alone could be larger.
        segment = min(self.retention_bytes // _SEGMENTS_KEPT, _MAX_SEGMENT_BYTES)
        return {"retention.bytes": str(self.retention_bytes), "segment.bytes": str(segment)}


def ensure_topics(kafka: KafkaSettings, specs: Sequence[TopicSpec], timeout: float = 10.0) -> None:
    """Make the topics that are missing, and configure those that exist. Blocks. May be repeated.

    Args:
        kafka: How to reach the brokers.
        specs: The topics.
        timeout: Seconds for each of at most three requests.

    Raises:
        BrokerUnavailable: Later it may work.
        TopicMissing: The broker refuses to make or configure a topic.
    """
    admin = AdminClient(kafka.client_config(), logger=client_logger("topics"))
    existing = _create(admin, specs, timeout)
    _configure(admin, existing, timeout)
    _wait_for_leaders(admin, specs, timeout)


def _create(admin: AdminClient, specs: Sequence[TopicSpec], timeout: float) -> list[TopicSpec]:
    """Make topics; return those that existed before."""
    wanted = [
        NewTopic(spec.name, spec.partitions, _DEFAULT_OF_BROKER, config=spec.config())
        for spec in specs
    ]
    answers = admin.create_topics(wanted, request_timeout=timeout)
    return [spec for spec in specs if not _created(spec, answers[spec.name], timeout)]


def _created(spec: TopicSpec, answer: Future[Any], timeout: float) -> bool:
    try:
        answer.result(timeout + 1)
    except (KafkaException, TimeoutError) as error:
        if _code(error) == KafkaError.TOPIC_ALREADY_EXISTS:
            return False
        raise _translated(spec.name, error) from None
    return True


def _configure(admin: AdminClient, specs: Iterable[TopicSpec], timeout: float) -> None:
    resources = {_resource(spec): spec for spec in specs}
    if not resources:
        return
    answers = admin.incremental_alter_configs(list(resources), request_timeout=timeout)
    for resource, answer in answers.items():
        try:
            answer.result(timeout + 1)
        except (KafkaException, TimeoutError) as error:
            raise _translated(resource.name, error) from None


def _resource(spec: TopicSpec) -> ConfigResource:
    entries = [
        ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET)
        for name, value in spec.config().items()
    ]
    return ConfigResource(ResourceType.TOPIC, spec.name, incremental_configs=entries)


def _wait_for_leaders(admin: AdminClient, specs: Sequence[TopicSpec], timeout: float) -> None:
    """Wait until the topics can be written to, so that services that start next find them."""
    attempts = Retrying(
        retry=retry_if_result(bool), stop=stop_after_delay(timeout), wait=wait_fixed(0.1)
    )
    try:
        attempts(_leaderless, admin, {spec.name for spec in specs}, timeout)
    except RetryError:
        raise BrokerUnavailable("LEADER_NOT_AVAILABLE") from None


def _leaderless(admin: AdminClient, names: set[str], timeout: float) -> set[str]:
    try:
        known = admin.list_topics(timeout=timeout).topics
    except KafkaException as error:
        raise BrokerUnavailable(error.args[0].name()) from None
    led = {
        name
        for name, topic in known.items()
        if topic.partitions and all(part.leader >= 0 for part in topic.partitions.values())
    }
    return names - led


def _code(error: KafkaException | TimeoutError) -> int | None:
    return error.args[0].code() if isinstance(error, KafkaException) else None


def _translated(topic: str, error: KafkaException | TimeoutError) -> Exception:
    name = error.args[0].name() if isinstance(error, KafkaException) else "_TIMED_OUT"
    return TopicMissing(topic, name) if _code(error) in _FORBIDDEN else BrokerUnavailable(name)
