"""One connection to the operations port: one request, one answer, for a bounded time.

It stands between the transport and aiohttp's own protocol, which has no such bounds: it parses all
requests that a client has sent before it answers the first one, and waits for half a request as
long as for a whole one. Both would be paid by the clients that the service's loop is for.
"""

import asyncio
from collections.abc import Callable
from typing import Final, cast

from speech_lib.service.places import Places

HELD_SECONDS: Final = 5.0
"""How long a connection may last, from the first byte of the request to the last of the answer."""
MAX_HEAD_BYTES: Final = 8_192
"""A request has no more than this; Prometheus and health checks send some 200 bytes."""

_READ_BYTES: Final = 4_096
_END_OF_HEAD: Final = b"\r\n\r\n"

_room = memoryview(bytearray(_READ_BYTES))
"""Where all connections read to: the loop asks for it, fills it and reports in one go."""


class OpsConnection(asyncio.BufferedProtocol):
    """Hands the first request of a connection to a protocol that answers it, and nothing after it.

    Args:
        answerer: Makes that protocol, once there is a whole request for it.
        places: Where the connection takes a place, at the cost of another one if need be.
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
        """Take a place, and have whoever loses one for it cut."""
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
        """End the connection without another word."""
        if self._transport is not None:
            self._transport.abort()

    def get_buffer(self, _sizehint: int) -> memoryview:
        """Return where to read to: what a client sends in one turn of the loop is little."""
        return _room

    def buffer_updated(self, count: int) -> None:
        """Collect the head of the first request; whatever comes after it is not looked at."""
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
