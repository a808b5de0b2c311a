"""A stand-in for a decoder that some values kill, for tests of reading on behind them."""

import os
import signal

_MUCH = 512 * 1024 * 1024


def endure(value: bytes) -> None:
    """Do what a value says. Importable, because it runs in a process of its own."""
    match value:
        case b"kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case b"crash":
            os.abort()
        case b"raise":
            raise ValueError
        case b"eat":
            bytearray(_MUCH)
