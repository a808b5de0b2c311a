"""WebSocket ingress gateway: buffers one utterance in memory and stores it on Kafka."""

# The version of everything: scripts/release bumps it, here and where it must be repeated.
__version__ = "0.3.0-dev"
