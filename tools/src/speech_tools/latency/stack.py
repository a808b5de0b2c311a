"""The pipeline that `speech latency` measures: one that runs, or one that it starts itself."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from speech_lib.kafka.settings import KafkaSettings

from speech_tools import stack
from speech_tools.topics import OWN, Topics

EMBEDDED = "embedded"
RUNNING = "running"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a pipeline is.

    Attributes:
        kind: `embedded` or `running`.
        engine: What recognises, as far as it is known.
        url: Of the gateway.
        kafka: How to reach the brokers.
        registry_url: Of the schema registry.
        topics: Where the records come.
    """

    kind: str
    engine: str
    url: str
    kafka: KafkaSettings
    registry_url: str
    topics: Topics


@contextmanager
def embedded(log_dir: Path, clients: int) -> Iterator[Place]:
    """Run a whole pipeline on this machine.

    Raises:
        StackError: A part did not start, or is not installed.
    """
    with stack.pipeline(log_dir, _room_for(clients)) as (kafka, gateway):
        yield Place(
            EMBEDDED,
            "pocketsphinx, one worker",
            gateway.url,
            KafkaSettings(bootstrap_servers=kafka.bootstrap_servers),
            kafka.registry_url,
            OWN,
        )


def _room_for(clients: int) -> Mapping[str, str]:
    room = str(max(10, clients))
    return {
        **stack.MANY_FROM_ONE_ADDRESS,
        "MAX_CONNECTIONS": room,
        "MAX_CONNECTIONS_PER_ADDRESS": room,
    }
