"""How the scripts reach a pipeline that runs: its brokers, its registry, its topics.

Used by the scripts that read the topics. Options name brokers and registry, with the variables of
the services as their defaults; everything else about Kafka is read from the environment alone.
"""

import os
from typing import Self

from pydantic import Field
from speech_lib.service.config import KafkaEnvironment
from speech_lib.service.setting_types import HttpUrl, Topic

from speech_tools.trace.tracing import Topics

DEFAULT_SERVERS = "localhost:29092"
DEFAULT_REGISTRY = "http://localhost:8081"
_READ = ("KAFKA_", "TOPIC_", "ASR_")


class PipelineEnvironment(KafkaEnvironment):
    """What a script that reads the topics has to know."""

    schema_registry_url: HttpUrl = Field(alias="SCHEMA_REGISTRY_URL")
    """Where the schema of the text is kept."""

    topic_dead_letter: Topic = Field("speech.audio.ingress.dlq", alias="TOPIC_DEAD_LETTER")
    """Topic of the records that cannot be processed."""

    @classmethod
    def read(cls, servers: str, registry: str) -> Self:
        """Read the environment; how a service logs is none of a script's business.

        Raises:
            ConfigError: one line that names each wrong variable and what it takes.
        """
        environ = {name: text for name, text in os.environ.items() if name.startswith(_READ)}
        return cls.load(
            {**environ, "KAFKA_BOOTSTRAP_SERVERS": servers, "SCHEMA_REGISTRY_URL": registry}
        )

    def topics(self) -> Topics:
        """Return where to look."""
        return Topics(self.topic_audio_ingress, self.topic_asr_text, self.topic_dead_letter)
