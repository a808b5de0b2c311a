"""Speech recognition service: audio events in, text events out."""

__version__ = "0.3.0-dev"
