"""Stand for a decoder that some values end: for tests of who reads on behind them."""

import os
import signal

_MUCH = 512 * 1024 * 1024


def endure(value: bytes) -> None:
    """Do what a value says; importable, because it is done in a process of its own."""
    match value:
        case b"kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case b"crash":
            os.abort()
        case b"raise":
            raise ValueError
        case b"eat":
            bytearray(_MUCH)
