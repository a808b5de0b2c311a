"""What the services of the pipeline share: events, Kafka, telemetry, the life of a service."""

# As in speech_gateway: scripts/release bumps both.
__version__ = "0.3.0-dev"
