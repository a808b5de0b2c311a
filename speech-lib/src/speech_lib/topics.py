"""Make the topics of the pipeline: the one-shot that deployments run before the services.

`python -m speech_lib.topics` waits for the broker, makes the topics that are missing and configures
the others. It exits with 0, with 2 where the environment is wrong, with 3 where the broker refuses,
and with 1 where it was stopped before. `speech_lib.kafka.admin` does the work.
"""

import sys
from functools import partial
from typing import Annotated

from pydantic import Field

from speech_lib.errors import BrokerUnavailable
from speech_lib.kafka.admin import DAY_MS, TopicSpec, ensure_topics
from speech_lib.service.config import KafkaEnvironment
from speech_lib.service.logs import get_logger
from speech_lib.service.run import ExitCode, StopSignals, run
from speech_lib.service.setting_types import whole
from speech_lib.service.startup import wait_for

MIN_RETENTION_BYTES = 64 * 1024 * 1024
MAX_RETENTION_BYTES = 1024**5


class TopicsEnvironment(KafkaEnvironment):
    """The environment variables of the one-shot."""

    topic_partitions: Annotated[int, whole(1, 1_000)] = Field(6, alias="TOPIC_PARTITIONS")
    """Partitions of each topic that is made: the most recognisers that can share the work."""

    topic_retention_bytes: (
        Annotated[int, whole(MIN_RETENTION_BYTES, MAX_RETENTION_BYTES)] | None
    ) = Field(None, alias="TOPIC_RETENTION_BYTES")
    """Bytes that each partition of each topic keeps; unbounded by size where it is unset."""

    def specs(self) -> list[TopicSpec]:
        """Return the topics of the pipeline. A service reads each, so the broker unpacks each."""
        topic = partial(
            TopicSpec,
            partitions=self.topic_partitions,
            retention_bytes=self.topic_retention_bytes,
            uncompressed=True,
        )
        return [
            topic(self.topic_audio_ingress, DAY_MS),
            topic(self.topic_asr_text, DAY_MS),
            topic(self.topic_dead_letter, 7 * DAY_MS),
        ]


async def _make(settings: TopicsEnvironment, signals: StopSignals) -> None:
    log = get_logger(__name__)
    kafka, specs = settings.kafka(), settings.specs()
    await wait_for(
        "topics",
        lambda: ensure_topics(kafka, specs),
        retry_on=(BrokerUnavailable,),
        log=log,
        stop=signals.drain,
    )
    log.info("topics are there", topics=[spec.name for spec in specs])


def main() -> int:
    """Make the topics; return the exit code of the process: 0 only where they have been made."""
    made = False

    async def make(settings: TopicsEnvironment, signals: StopSignals) -> None:
        nonlocal made
        await _make(settings, signals)
        made = True

    code = run(TopicsEnvironment, make, "topics")
    return code if code or made else ExitCode.DEFECT


if __name__ == "__main__":
    sys.exit(main())
