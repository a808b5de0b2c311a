"""What the services of the speech pipeline share: events, schemas, Kafka, configuration."""

__version__ = "0.3.0-dev"
