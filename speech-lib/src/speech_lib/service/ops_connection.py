"""One connection to the operations port: one request, one answer, in a bounded time.

`ops` puts it between the transport and aiohttp's own protocol, which has no such bounds. aiohttp
parses all requests that a client has sent before it answers the first, and waits for half a request
as long as for a whole one. The service's clients would pay for both.
"""

import asyncio
from collections.abc import Callable
from typing import Final, cast

from speech_lib.service.places import Places

HELD_SECONDS: Final = 5.0
"""The longest connection, from its opening to the last byte of the answer."""
MAX_HEAD_BYTES: Final = 8_192
"""The longest request. Prometheus and health checks send some 200 bytes."""

_READ_BYTES: Final = 4_096
_END_OF_HEAD: Final = b"\r\n\r\n"

_room = memoryview(bytearray(_READ_BYTES))
"""All connections read into it: the loop asks for it, fills it and reports in one step."""


class OpsConnection(asyncio.BufferedProtocol):
    """Passes only the first request of a connection on, to a protocol that answers it.

    Args:
        answerer: Makes that protocol, once the whole request has come.
        places: The connection takes a place there, and cuts another one if there is none left.
    """

    def __init__(
        self, answerer: Callable[[], asyncio.Protocol], places: "Places[OpsConnection]"
    ) -> None:
        self._answerer = answerer
        self._places = places
        self._head = bytearray()
        self._answering: asyncio.Protocol | None = None
        self._transport: asyncio.Transport | None = None
        self._clock: asyncio.TimerHandle | None = None

    @property
    def asked(self) -> bool:
        """Whether a whole request has come."""
        return self._answering is not None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take a place, and cut the connection that loses one for it."""
        self._transport = cast("asyncio.Transport", transport)
        address = (transport.get_extra_info("peername") or ("",))[0]
        self._clock = asyncio.get_running_loop().call_later(HELD_SECONDS, self.cut)
        if (lost := self._places.take(self, address)) is not None:
            lost.cut()

    def connection_lost(self, error: Exception | None) -> None:
        """Give the place back."""
        self._places.leave(self)
        if self._clock is not None:
            self._clock.cancel()
        if self._answering is not None:
            self._answering.connection_lost(error)

    def cut(self) -> None:
        """Abort the connection."""
        if self._transport is not None:
            self._transport.abort()

    def get_buffer(self, _sizehint: int) -> memoryview:
        """Return a small buffer, so that a client sends little in one turn of the loop."""
        return _room

    def buffer_updated(self, count: int) -> None:
        """Collect the head of the first request; ignore all that follows."""
        if self.asked:
            return
        searched = max(0, len(self._head) - len(_END_OF_HEAD) + 1)
        self._head += _room[:count]
        end = self._head.find(_END_OF_HEAD, searched)
        if end >= 0:
            self._answer(bytes(self._head[: end + len(_END_OF_HEAD)]))
        elif len(self._head) > MAX_HEAD_BYTES:
            self.cut()

    def _answer(self, head: bytes) -> None:
        assert self._transport is not None  # noqa: S101 - bytes come by one
        self._answering = self._answerer()
        self._answering.connection_made(self._transport)
        self._answering.data_received(head)

    def pause_writing(self) -> None:
        """Pass on that the client reads slowly."""
        if self._answering is not None:
            self._answering.pause_writing()

    def resume_writing(self) -> None:
        """Pass on that the client has caught up."""
        if self._answering is not None:
            self._answering.resume_writing()
