"""What the native libraries of a worker print, as lines of our own log.

Used by `pool`. They write to the standard error of their process, in no format of ours; a library
that ends the process often says there why. Its last words are read after its death.
"""

import asyncio
import multiprocessing
import os
from contextlib import suppress

from speech_lib.service.logs import get_logger

_READ_BYTES = 65_536
_MAX_LINES = 20
_MAX_LINE = 300
_log = get_logger(__name__)


class NativeLog:
    """The lines of one worker process.

    While it loads its engine it has heard nobody, so what is printed is told. After that a line may
    hold what people say: only that there was one is told.

    The caller owes `started` once the process has the writing end, and one `close`.
    """

    def __init__(self) -> None:
        self._reader, self.writer = multiprocessing.Pipe(duplex=False)
        os.set_blocking(self._reader.fileno(), False)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._told = 0
        self.loaded = False

    def started(self) -> None:
        """Read from now on."""
        self.writer.close()
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._reader.fileno(), self._read)

    def close(self) -> None:
        """Tell what is left, and read no more."""
        if self._loop is not None:
            self._read()
        self._end()
        self.writer.close()
        self._reader.close()

    def _read(self) -> None:
        """Tell what has been printed; without waiting for more."""
        with suppress(BlockingIOError):
            data = os.read(self._reader.fileno(), _READ_BYTES)
            if not data:  # the process has ended
                self._end()
            elif self.loaded:
                _log.warning("engine_message")
            else:
                self._tell(data.decode(errors="replace"))

    def _tell(self, text: str) -> None:
        for line in filter(None, map(str.strip, text.splitlines())):
            self._told += 1
            if self._told <= _MAX_LINES:
                _log.warning("engine_message", line=line[:_MAX_LINE])

    def _end(self) -> None:
        if self._loop is not None and not self._loop.is_closed():
            self._loop.remove_reader(self._reader.fileno())
        self._loop = None
