"""Where samples come from: a file, a pipe, a microphone."""

import asyncio
import os
import sys
import threading
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path

from speech_lib.events import SAMPLE_BYTES

from speech_tools.protocol.audio import (
    HEAD_BYTES,
    MAX_FILE_BYTES,
    AudioError,
    Recording,
    decode,
    is_container,
    load,
    refuse_foreign,
)
from speech_tools.stream.incoming import Incoming

PIPE = "-"
_READ_BYTES = 65_536

Listening = Callable[[Incoming], AbstractContextManager[object]]
"""What fills `Incoming` while it is open, from within the event loop."""


@dataclass(frozen=True)
class Source:
    """Where samples come from.

    Attributes:
        what: for people.
        recording: all samples, if they are there; nothing for what is live.
        listen: with what is live, how to listen to it.
    """

    what: str
    recording: Recording | None
    listen: Listening = nullcontext

    def incoming(self) -> Incoming:
        """Return what will hold the samples."""
        if self.recording is None:
            return Incoming()
        return Incoming(self.recording.pcm, ended=True)


def of_file(path: Path) -> Source:
    """Read a file.

    Raises:
        AudioError: There is no recording in it.
    """
    recording = load(path)
    return Source(f"{path.name}, {recording.origin}", recording)


def of_pipe() -> Source:
    """Look at the first bytes on stdin. A format with a header is read to its end, PCM16 is live.

    Raises:
        AudioError: It is no audio.
    """
    if sys.stdin.isatty():
        raise AudioError("-: stdin is a terminal, expected audio, such as from arecord")
    descriptor = sys.stdin.fileno()
    head = _read_up_to(descriptor, HEAD_BYTES)
    if not head:
        raise AudioError("-: is empty, expected audio")
    refuse_foreign(PIPE, head)
    if is_container(head):
        data = head + _read_up_to(descriptor, MAX_FILE_BYTES + 1 - len(head))
        if len(data) > MAX_FILE_BYTES:
            raise AudioError(f"-: too large, expected at most {MAX_FILE_BYTES} bytes")
        recording = decode(PIPE, data)
        return Source(f"stdin, {recording.origin}", recording)
    return Source(
        "stdin, headerless PCM16, taken as 16000 Hz, mono",
        None,
        lambda incoming: _Pipe(descriptor, head, incoming),
    )


def _read_up_to(descriptor: int, count: int) -> bytes:
    data = bytearray()
    while len(data) < count and (more := os.read(descriptor, min(count - len(data), _READ_BYTES))):
        data += more
    return bytes(data)


class _Pipe:
    """Reads in a thread: a blocking read of a silent pipe must not keep the program alive."""

    def __init__(self, descriptor: int, head: bytes, incoming: Incoming) -> None:
        self._descriptor = descriptor
        self._head = head
        self._incoming = incoming
        self._loop = asyncio.get_running_loop()

    def __enter__(self) -> None:
        threading.Thread(target=self._read, daemon=True).start()

    def __exit__(self, *_: object) -> None:
        self._incoming.close()

    def _read(self) -> None:
        with suppress(RuntimeError, asyncio.CancelledError):  # the loop has ended before the pipe
            data = self._head
            while data:
                whole = len(data) // SAMPLE_BYTES * SAMPLE_BYTES
                if not self._do(self._incoming.put(data[:whole])):
                    return
                rest, more = data[whole:], os.read(self._descriptor, _READ_BYTES)
                data = rest + more if more else b""
            self._loop.call_soon_threadsafe(self._incoming.close)

    def _do(self, put: Awaitable[bool]) -> bool:
        return asyncio.run_coroutine_threadsafe(put, self._loop).result()  # type: ignore[arg-type]
