"""What the services of the speech pipeline share: events, schemas, Kafka, configuration."""

# As in speech_gateway: scripts/release bumps both.
__version__ = "0.3.0-dev"
