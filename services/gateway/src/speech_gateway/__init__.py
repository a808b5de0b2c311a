"""WebSocket ingress gateway: buffers one utterance in memory and stores it on Kafka."""

__version__ = "0.3.0-dev"
