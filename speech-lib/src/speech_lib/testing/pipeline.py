"""The pipeline that tests run against: real Kafka if the environment names one, else embedded.

The fixtures `pipeline` and `make_topic` of the repository's `conftest.py` use it.
"""

import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from speech_lib.kafka.settings import MAX_RECORD_BYTES
from speech_lib.testing.embedded import EmbeddedPipeline

_ADMIN_SECONDS = 30.0
_VARIABLES = ("KAFKA_BOOTSTRAP_SERVERS", "SCHEMA_REGISTRY_URL")


@dataclass(frozen=True, slots=True)
class Pipeline:
    """A broker and a registry that run.

    Attributes:
        bootstrap_servers: The value for `KAFKA_BOOTSTRAP_SERVERS`.
        registry_url: The value for `SCHEMA_REGISTRY_URL`.
        real: Whether this is Apache Kafka. Tests that need it are skipped otherwise.
        embedded: The helper process with its fault injection, where it is not real.
    """

    bootstrap_servers: str
    registry_url: str
    real: bool
    embedded: EmbeddedPipeline | None
    _create: Callable[[str, int], None] = field(repr=False)

    def make_topic(self, prefix: str = "t", partitions: int = 1) -> str:
        """Make a topic that nobody else uses, and return its name."""
        topic = f"{prefix}-{uuid.uuid4().hex[:12]}"
        self._create(topic, partitions)
        return topic


def missing_variable(environ: Mapping[str, str]) -> str | None:
    """Return the name of the variable that is not set while the other one is."""
    missing = [name for name in _VARIABLES if not environ.get(name)]
    return missing[0] if len(missing) == 1 else None


@contextmanager
def open_pipeline(environ: Mapping[str, str]) -> Iterator[Pipeline]:
    """Yield the pipeline that the environment asks for; end or delete all that it started."""
    servers, registry_url = (environ.get(name, "") for name in _VARIABLES)
    if servers and registry_url:
        with _topics_at(servers) as create:
            yield Pipeline(servers, registry_url, real=True, embedded=None, _create=create)
    else:
        with EmbeddedPipeline() as helper:
            yield Pipeline(
                helper.bootstrap_servers,
                helper.registry_url,
                real=False,
                embedded=helper,
                _create=helper.create_topic,
            )


@contextmanager
def _topics_at(bootstrap_servers: str) -> Iterator[Callable[[str, int], None]]:
    """Yield a function that makes topics at a real broker; they are deleted at the end."""
    admin = AdminClient({"bootstrap.servers": bootstrap_servers})
    made: list[str] = []

    def create(topic: str, partitions: int) -> None:
        config = {
            "max.message.bytes": str(MAX_RECORD_BYTES),
            "retention.ms": "-1",  # tests write records of years ago, which the broker would delete
        }
        new = NewTopic(topic, num_partitions=partitions, replication_factor=1, config=config)
        admin.create_topics([new], request_timeout=_ADMIN_SECONDS)[topic].result(_ADMIN_SECONDS)
        made.append(topic)

    try:
        yield create
    finally:
        if made:
            for deleted in admin.delete_topics(made, request_timeout=_ADMIN_SECONDS).values():
                deleted.result(_ADMIN_SECONDS)
