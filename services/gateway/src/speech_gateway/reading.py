"""How the connection reads: a little at a time, not while its client is too fast, for a listener.

Used by `connection.py`. It is built on asyncio alone and does not know the library.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

from speech_gateway.errors import Ending

READ_BYTES = 16_384
"""In one turn of the loop. 43,000 tiny frames fit into the 256 KiB that asyncio reads by itself,
and would hold the loop for long."""
_MAX_EARLY_MESSAGES = 4
"""More messages than that before there is a session pause the reading until there is one."""
_EARLY_SECONDS = 5.0

_room = memoryview(bytearray(READ_BYTES))
"""All connections read into it: a selector loop asks for it, fills it and reports in one turn."""


class Reader(Protocol):
    """A connection that reads by `SmallReads`."""

    def bytes_received(self, data: bytes) -> None:
        """Take what one read brought."""

    def eof_received(self) -> None:
        """Take the end of the data."""

    def connection_lost(self, exc: Exception | None) -> None:
        """Take the end of the connection."""

    def pause_writing(self) -> None:
        """Take that too much waits to be sent."""

    def resume_writing(self) -> None:
        """Take that little waits to be sent."""


class SmallReads(asyncio.BufferedProtocol):
    """Stands between a transport and a connection, and bounds each read to `READ_BYTES`.

    The connection cannot do that itself: it is an `asyncio.Protocol` too, for which uvloop reads up
    to 256 KB at a time.
    """

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - asyncio's signature
        """Offer room for one read."""
        return _room

    def buffer_updated(self, nbytes: int) -> None:
        """Pass on what one read brought."""
        self._reader.bytes_received(bytes(_room[:nbytes]))

    def eof_received(self) -> None:
        """Pass on the end of the data."""
        self._reader.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        """Pass on the end of the connection."""
        self._reader.connection_lost(exc)

    def pause_writing(self) -> None:
        """Pass on that too much waits to be sent."""
        self._reader.pause_writing()

    def resume_writing(self) -> None:
        """Pass on that little waits to be sent."""
        self._reader.resume_writing()


class ReadPause:
    """Pauses the reading of a transport until a time on its loop's clock."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._until = 0.0
        self._timer: asyncio.TimerHandle | None = None
        """Set while reading is paused."""

    def hold(self, until: float) -> None:
        """Read nothing before `until`; a later call moves it on."""
        self._until = until
        if self._timer is None and not self._transport.is_closing():
            self._transport.pause_reading()
            self._timer = self._loop.call_at(until, self._on_timer)

    def end(self) -> None:
        """Read on now, where reading is paused."""
        if self._timer is not None:
            self.cancel()
            if not self._transport.is_closing():
                self._transport.resume_reading()

    def cancel(self) -> None:
        """Stop the timer, as for a connection that is lost."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _on_timer(self) -> None:
        if self._until > self._loop.time():
            self._timer = self._loop.call_at(self._until, self._on_timer)
        else:
            self.end()


class Listener(Protocol):
    """What takes a connection's messages: the driver."""

    def receive(self, message: str | bytes) -> None:
        """Take a message, in the turn of the loop in which it arrived."""

    def end(self, ending: Ending) -> None:
        """Take the end of the stream; no message follows."""

    def lost(self) -> None:
        """Take the end of the connection itself, after that of its stream."""


class EarlyMessages:
    """Keeps what arrives before the driver listens: some clients do not wait for the 101."""

    def __init__(self, pause: ReadPause, loop: asyncio.AbstractEventLoop) -> None:
        self.messages: list[str | bytes] = []
        self.ending: Ending | None = None
        self._pause = pause
        self._loop = loop

    def receive(self, message: str | bytes) -> None:
        """Keep a message; after a few, wait with reading."""
        self.messages.append(message)
        if len(self.messages) > _MAX_EARLY_MESSAGES:
            self._pause.hold(self._loop.time() + _EARLY_SECONDS)

    def end(self, ending: Ending) -> None:
        """Keep the end of the stream."""
        self.ending = ending

    def lost(self) -> None:
        """Do nothing: no driver begins with a connection that is lost."""

    def pass_on(self, listener: Listener) -> None:
        """Give all to `listener`, in order."""
        for message in self.messages:
            listener.receive(message)
        if self.ending is not None:
            listener.end(self.ending)
