"""The pipeline that `latency.py` measures: one that runs, or one of its own for the time being."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from speech_lib.kafka.settings import KafkaSettings

from speech_tools import stack
from speech_tools.trace import tracing

EMBEDDED = "embedded"
RUNNING = "running"
_TOPICS = tracing.Topics("speech.audio.ingress", "speech.asr.text", "speech.audio.ingress.dlq")


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
    topics: tracing.Topics


@contextmanager
def embedded(log_dir: Path, clients: int) -> Iterator[Place]:
    """Run broker, registry, recogniser and gateway on this machine.

    Raises:
        StackError: Broker and registry, or a service, did not start.
        ImportError: What is installed holds no embedded broker, as in an image.
    """
    from speech_lib.testing.embedded import EmbeddedError, EmbeddedPipeline  # noqa: PLC0415

    with ExitStack() as running:
        try:
            kafka = running.enter_context(
                EmbeddedPipeline((_TOPICS.audio, _TOPICS.text, _TOPICS.dead_letter))
            )
        except EmbeddedError as error:
            raise stack.StackError(str(error)) from error
        running.enter_context(stack.recogniser(kafka, log_dir))
        gateway = running.enter_context(stack.gateway(kafka, log_dir, _room_for(clients)))
        yield Place(
            EMBEDDED,
            "pocketsphinx, one worker",
            gateway.url,
            KafkaSettings(bootstrap_servers=kafka.bootstrap_servers),
            kafka.registry_url,
            _TOPICS,
        )


def _room_for(clients: int) -> Mapping[str, str]:
    room = str(max(10, clients))
    return {
        **stack.MANY_FROM_ONE_ADDRESS,
        "MAX_CONNECTIONS": room,
        "MAX_CONNECTIONS_PER_ADDRESS": room,
    }
