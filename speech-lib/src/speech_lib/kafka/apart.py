"""Read records in a process of its own, which a record may kill: for `claims`.

What the client library or a decoder does with hostile bytes may end in a crash, in all memory, or
never. After a member of the group was killed the next one lets this process go first. It reads one
batch at a time and with little memory; a record that ends it twice is not read by anybody else.
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

from speech_lib.kafka.peek import Peek, is_damaged
from speech_lib.kafka.received import received
from speech_lib.kafka.records import ReceivedRecord
from speech_lib.kafka.settings import MAX_RECORD_BYTES, ClientConfig

Try = Callable[[bytes], None]
"""Does with a record's value what may be dangerous; importable by its name, as for `spawn`."""

_STRETCH_BYTES = 2 * MAX_RECORD_BYTES
"""More than a member fetches ahead of what it has committed."""
_MEMORY_BYTES = 128 * 1024 * 1024
"""What the process may take beyond what it has at its start: 60 times the largest record."""
_RECORD_SECONDS = 60.0
_LOOK_SECONDS = 5.0
_MAX_PROCESSES = 64
_READY, _DONE = "ready", "done"
_log: FilteringBoundLogger = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Stretch:
    """Records of one partition, from `offset` on."""

    topic: str
    partition: int
    offset: int


def read_apart(config: ClientConfig, at: Stretch, try_on: Try) -> list[ReceivedRecord]:
    """Return the first records of a stretch; for one that ends its reader, what stands for it.

    Ends without a report at the end of the partition, at what `consumer` itself passes over, where
    the broker does not answer, and where no process can be had. Blocks.

    Args:
        config: Of the member of the group.
        at: Where to begin.
        try_on: Done to each value; what it raises does not matter.
    """
    found: list[ReceivedRecord] = []
    suspect = -1
    for _ in range(_MAX_PROCESSES):
        told = [*_of_a_process(config, at, try_on)]
        found += [each for each in told if isinstance(each, ReceivedRecord)]
        if not told or told[-1] == _DONE:
            return found
        begin = found[-1].offset + 1 if found else at.offset
        if begin == suspect:
            _log.warning("record_ends_its_reader", partition=at.partition, offset=begin)
            found.append(ReceivedRecord.damaged(at.topic, at.partition, begin, begin))
        suspect, at = (
            begin,
            Stretch(at.topic, at.partition, found[-1].offset + 1 if found else begin),
        )
    return found


def _of_a_process(config: ClientConfig, at: Stretch, try_on: Try) -> Iterator[object]:
    """Yield what a process tells until it ends, or takes too long; nothing if it cannot start."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_read, args=(theirs, config, at, try_on), daemon=True)
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


def _read(told: Connection, config: dict[str, Any], at: Stretch, try_on: Try) -> None:
    peek = Peek(config)
    _limit_memory()
    # Where the process ends before, no record is to blame.
    told.send(_READY)
    size, offset = 0, at.offset
    while size < _STRETCH_BYTES:
        message = peek.at(at.topic, at.partition, offset, _LOOK_SECONDS)
        if message is None or message.error() is not None or is_damaged(message):
            break
        record = received(message)
        with contextlib.suppress(Exception):
            try_on(record.value)
        told.send(record)
        size, offset = size + len(record.key) + len(record.value), record.offset + 1
    told.send(_DONE)


def _limit_memory() -> None:
    """End this process before the memory of its container does, where the system can."""
    with contextlib.suppress(ImportError, OSError, IndexError, ValueError):
        import resource  # noqa: PLC0415  # not on every system

        status = Path("/proc/self/status").read_text()
        data = int(status.partition("VmData:")[2].split()[0]) * 1024
        limit = data + _MEMORY_BYTES
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
