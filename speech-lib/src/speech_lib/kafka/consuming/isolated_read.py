"""Read records in a process of its own, which a record may kill: for `crash_marks`.

Hostile bytes may make the client library or a decoder crash, take all memory, or never end. So
after a member of the group was killed, this process goes first. It reads one batch at a time, with
little memory. A record that kills it twice is read by nobody else.
"""

import contextlib
import multiprocessing
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import structlog
from structlog.typing import FilteringBoundLogger

from speech_lib.kafka.consuming.offset_reader import OffsetReader, is_damaged
from speech_lib.kafka.message import received
from speech_lib.kafka.records import ReceivedRecord
from speech_lib.kafka.settings import MAX_AHEAD_BYTES, MAX_RECORD_BYTES, ClientConfig

TrialDecode = Callable[[bytes], None]
"""Decodes a record's value, at its own risk. Importable by name, because `spawn` pickles it."""

_MAX_READ_BYTES = MAX_AHEAD_BYTES + 2 * MAX_RECORD_BYTES
"""More than a member fetches ahead of its commits."""
_MEMORY_BYTES = 128 * 1024 * 1024
"""The memory that the process may take beyond that of its start: 60 times the largest record."""
_RECORD_SECONDS = 60.0
_LOOK_UP_SECONDS = 5.0
_MAX_PROCESSES = 64
_READY, _DONE = "ready", "done"
_log: FilteringBoundLogger = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Position:
    """An offset in a partition."""

    topic: str
    partition: int
    offset: int


def read_isolated(
    config: ClientConfig, position: Position, trial_decode: TrialDecode
) -> list[ReceivedRecord]:
    """Return the records from a position on, with a stand-in for each that kills its reader.

    It ends without an error at the end of the partition, at a batch that `consumer` passes over
    itself, where the broker does not answer, and where no process can be started. Blocks.

    Args:
        config: The configuration of the group's member.
        position: Where to begin.
        trial_decode: Called with each value. What it raises does not matter.
    """
    found: list[ReceivedRecord] = []
    suspect = -1
    for _ in range(_MAX_PROCESSES):
        sent = [*_messages_of_process(config, position, trial_decode)]
        found += [each for each in sent if isinstance(each, ReceivedRecord)]
        if not sent or sent[-1] == _DONE:
            return found
        killer = _next_offset(found, position)
        if killer == suspect:
            topic, partition = position.topic, position.partition
            _log.warning("record_ends_its_reader", partition=partition, offset=killer)
            found.append(ReceivedRecord.damaged(topic, partition, killer, killer))
        suspect = killer
        position = Position(position.topic, position.partition, _next_offset(found, position))
    return found


def _next_offset(found: list[ReceivedRecord], position: Position) -> int:
    return found[-1].offset + 1 if found else position.offset


def _messages_of_process(
    config: ClientConfig, position: Position, trial_decode: TrialDecode
) -> Iterator[object]:
    """Yield what a process sends until it ends or takes too long; nothing if it cannot start."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    arguments = (theirs, config, position, trial_decode)
    process = context.Process(target=_read, args=arguments, daemon=True)
    try:
        process.start()
        theirs.close()
        while ours.poll(_RECORD_SECONDS):
            yield ours.recv()
    except (OSError, EOFError):  # the latter when the process ends
        return
    finally:
        if process.pid is not None:
            process.kill()
            process.join()
        ours.close()


def _read(
    results: Connection, config: dict[str, Any], position: Position, trial_decode: TrialDecode
) -> None:
    """Send each record from `position` on; runs in the process."""
    reader = OffsetReader(config)
    _limit_memory()
    # If the process ends before this, no record is to blame.
    results.send(_READY)
    size, offset = 0, position.offset
    while size < _MAX_READ_BYTES:
        message = reader.read(position.topic, position.partition, offset, _LOOK_UP_SECONDS)
        if message is None or message.error() is not None or is_damaged(message):
            break
        record = received(message)
        with contextlib.suppress(Exception):
            trial_decode(record.value)
        results.send(record)
        size, offset = size + len(record.key) + len(record.value), record.offset + 1
    results.send(_DONE)


def _limit_memory() -> None:
    """Have this process end before its container runs out of memory, where the system can."""
    with contextlib.suppress(ImportError, OSError, IndexError, ValueError):
        import resource  # noqa: PLC0415  # not on every system

        status = Path("/proc/self/status").read_text()
        data = int(status.partition("VmData:")[2].split()[0]) * 1024
        limit = data + _MEMORY_BYTES
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
