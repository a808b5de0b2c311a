"""How a command reaches a running pipeline: its brokers, its registry, its topics.

Used by `speech trace` and `speech latency`. Options name brokers and registry. Everything else
about Kafka comes from the services' variables.
"""

import os
from typing import Self

from pydantic import Field
from speech_lib.service.config import KafkaEnvironment
from speech_lib.service.setting_types import HttpUrl

from speech_tools.topics import Topics

KAFKA_VARIABLES = (
    "The variables KAFKA_SECURITY_PROTOCOL, KAFKA_SASL_… and KAFKA_SSL_CA_LOCATION say how to "
    "reach the broker."
)
"""For the help of a command."""
_READ = ("KAFKA_", "TOPIC_", "ASR_")


class PipelineEnvironment(KafkaEnvironment):
    """What a command that reads the topics has to know."""

    schema_registry_url: HttpUrl = Field(alias="SCHEMA_REGISTRY_URL")
    """Where the schema of the text is kept."""

    @classmethod
    def read(cls, servers: str, registry: str) -> Self:
        """Read the environment. How a service logs is left out: a command does not log.

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
