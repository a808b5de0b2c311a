"""Speech recognition service: audio events in, text events out."""

# As in speech_gateway: scripts/release bumps both.
__version__ = "0.3.0-dev"
