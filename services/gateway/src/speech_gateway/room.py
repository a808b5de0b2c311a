"""What grows with `MAX_CONNECTIONS`: the producer's queue, open files, and the memory of it all.

`__main__` asks before it builds anything. The sums are pure. `open_files_for` and `memory_limit`
ask the system.
"""

from __future__ import annotations

import resource
from pathlib import Path

from speech_lib.errors import ConfigError

KIB, MIB = 1 << 10, 1 << 20

LEAST_QUEUE_BYTES = 32 * MIB
_RECORD_OVERHEAD_BYTES = 4 * KIB
"""What an event has beside the WAV file: ids, headers, a traceparent."""

IDLE_BYTES = 100 * MIB
"""The gateway without clients: some 90 MB (docs/performance.md)."""
_CLIENT_BYTES = 256 * KIB
"""A client beside its audio: messages that are not whole, not taken or not sent yet."""
_COPIES_AT_THE_END = 2.2
"""How often the audio is there at most, as it becomes a WAV file and a record."""

_OTHER_FILES = 256
"""Listeners, unfinished handshakes, brokers, the registry, the operations port, Python's own."""

_LIMITS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)
"""Linux, Control Group v2 and v1: bytes, or `max`."""
_NO_LIMIT = 1 << 60


def queue_bytes(connections: int, largest_wav: int) -> int:
    """Return the producer's queue in which the largest utterance of every client has its place."""
    return max(LEAST_QUEUE_BYTES, connections * (largest_wav + _RECORD_OVERHEAD_BYTES))


def worst_case_bytes(connections: int, largest_wav: int) -> int:
    """Return the memory that is needed if every client ends the largest utterance at once."""
    each = int(_COPIES_AT_THE_END * largest_wav) + _CLIENT_BYTES
    return IDLE_BYTES + connections * each


def open_files_for(connections: int) -> None:
    """Let this process open a file for each client, and what it needs itself.

    Raises:
        ConfigError: It may not.
    """
    needed = connections + _OTHER_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and needed > hard:
        raise ConfigError(
            f"MAX_CONNECTIONS: expected at most {max(0, hard - _OTHER_FILES)}, as this process may"
            f" open {hard} files (nofile); or let it open {needed}"
        )
    if soft != resource.RLIM_INFINITY and needed > soft:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


def memory_limit(limits: tuple[Path, ...] = _LIMITS) -> int | None:
    """Return the bytes of memory that the container may use; nothing where it is not limited."""
    for file in limits:
        try:
            text = file.read_text(encoding="ascii").strip()
        except OSError:
            continue
        if text.isdecimal() and int(text) < _NO_LIMIT:
            return int(text)
    return None
