"""One command, `speech`, for everybody who works with a speech pipeline."""

# As in speech_gateway: scripts/release bumps all.
__version__ = "0.3.0-dev"
