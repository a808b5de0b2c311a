"""One WebSocket connection: `websockets`' own, with bounds on what one client can cost.

The server builds it through `create_connection=`, and the driver reads from it. It alone uses the
insides of `websockets` (`recv_messages`, `process_event`, `data_received`, `send_data`,
`protocol.fail`, `protocol.parser`); `tests/test_connection_pins.py` pins each. It adds to the
library's connection:

* It bounds the head of a request before the library parses it. 100 lines of 8 KiB, on a hundred
  connections, are more memory than the container has.
* It reads 16 KiB at a time and parses 2 KiB of that. 43,000 tiny frames fit into the 256 KiB that
  asyncio reads, and would hold the loop for long.
* It has a budget for control frames, empty messages and tiny fragments. The library answers the
  first unseen, and no other limit counts the last.
* It aborts a client that does not read, because pongs would pile up in memory.
* `receive` says at once how a stream ended, in stream order. The library's `recv` waits until the
  client closes TCP.
* It holds a failure for a bad frame back until the driver calls `fail`, because what came before
  may have ended the utterance.
* It gives its slot back when the transport is closed, also where no handler ever ran.
"""

from __future__ import annotations

import asyncio
import contextlib
from http import HTTPStatus
from typing import Any

from websockets.asyncio.server import ServerConnection
from websockets.exceptions import PayloadTooBig, TooManyFragments
from websockets.frames import CLOSE, CONT, DATA_OPCODES, CloseCode, Frame
from websockets.protocol import CLOSING, CONNECTING, OPEN, SEND_EOF, Event
from websockets.server import ServerProtocol

from speech_gateway.admission import Slot, UnfinishedHandshakes
from speech_gateway.errors import Ending, StreamEnded
from speech_gateway.handshake import Wanted
from speech_gateway.rates import TokenBucket

MAX_HEAD_BYTES = 16_384
"""Of a request: twice what browsers and proxies send at most."""
READ_BYTES = 16_384
PARSED_BYTES = 2_048
"""Some 340 of the smallest frames: what a flooder costs before its budget is checked."""
WRITE_LIMIT_BYTES = 65_536
MAX_QUEUED_FRAMES = 4
"""A stalled connection holds at most four frames of 64 KiB, and one read."""

_ABORT_AFTER_SECONDS = 0.25
"""Time for the last message to a client, before the gateway aborts its transport."""

_BUDGET_BURST = 40
_BUDGET_PER_SECOND = 20
_TINY_FRAGMENT_BYTES = 128
"""4 ms of audio. A shorter fragment that does not end its message takes from the budget."""

_room = memoryview(bytearray(READ_BYTES))
"""All connections read into it: a selector loop asks for it, fills it and reports in one turn."""


class GatewayConnection(ServerConnection, asyncio.BufferedProtocol):
    """A server connection with budgets, bounds and a slot; see the module."""

    slot: Slot | None = None
    """Held by the transport from just before the 101 until the connection is lost."""

    wanted: Wanted
    """What the handshake asked for, once it was judged acceptable."""

    def __init__(
        self,
        *args: Any,  # noqa: ANN401 - the library's own arguments
        handshakes: UnfinishedHandshakes,
        close_timeout: float,
        **kwargs: Any,  # noqa: ANN401
    ) -> None:
        super().__init__(*args, close_timeout=close_timeout, **kwargs)
        self._close_timeout = close_timeout
        self._handshakes = handshakes
        self._head_bytes = 0
        self._head_too_large = False
        self._budget = TokenBucket(_BUDGET_BURST, _BUDGET_PER_SECOND, self.loop.time())
        self._ending: Ending | None = None
        self._failure: tuple[int, str] | None = None
        """What the library would have failed the connection with; no byte counts after it."""
        # By `setattr`, as the library shadows `select_subprotocol`.
        setattr(self.protocol, "fail", self._hold_failure)  # noqa: B010
        self._abort_timer: asyncio.TimerHandle | None = None
        self.stream_ended = asyncio.Event()
        """Set when the stream has ended; messages may still wait to be received."""

    # What the driver calls

    async def receive(self) -> str | bytes:
        """Return the next message.

        Safe to cancel: no message is lost.

        Raises:
            StreamEnded: Everything that came before the end has been returned.
        """
        try:
            return await self.recv_messages.get()
        except EOFError:
            pass
        except UnicodeDecodeError as error:
            self._end_badly(CloseCode.INVALID_DATA, f"{error.reason} at position {error.start}")
        except TooManyFragments:
            self._end_badly(CloseCode.MESSAGE_TOO_BIG, "too many fragments")
        raise StreamEnded(self._ending or Ending.DISCONNECT)

    def fail(self) -> None:
        """Fail the connection (RFC 6455 section 7.1.7) if a bad frame ended the stream.

        The driver calls it once the messages before that frame have not ended the utterance.
        """
        if self._failure is not None and self._ending is not Ending.RATE_LIMITED:
            self._fail(*self._failure)

    async def close(self, code: int = CloseCode.NORMAL_CLOSURE, reason: str = "") -> None:
        """Close the connection; without the client's close frame where nothing more is read."""
        if self._ignores_input and self.protocol.state is OPEN:
            self._fail(code, reason)
            await self.wait_closed()
        else:
            await super().close(code, reason)

    async def cut(self, code: int, reason: str) -> None:
        """Close without waiting for the client's close frame, after a moment to send."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_ABORT_AFTER_SECONDS):
                await self.close(code, reason)
        self.transport.abort()

    def abort(self) -> None:
        """Close the transport at once."""
        self.transport.abort()

    @property
    def peer(self) -> str:
        """The address at the other end of TCP; empty where it is gone already."""
        address = self.remote_address
        return str(address[0]) if address else ""

    def handshake_finished(self) -> None:
        """Stop counting among the unfinished handshakes."""
        self._handshakes.end(self)

    # What asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin the handshake."""
        super().connection_made(transport)
        self._handshakes.begin(self, self.peer)

    def connection_lost(self, exc: Exception | None) -> None:
        """Release all that the transport holds, also where the library's part raises."""
        try:
            super().connection_lost(exc)
        finally:
            self._handshakes.end(self)
            self.stream_ended.set()
            if self._abort_timer is not None:
                self._abort_timer.cancel()
            if self.slot is not None:
                self.slot.release()

    def eof_received(self) -> None:
        """End the stream: the client will send no more. Data to send may still wait."""
        super().eof_received()
        if self._ending is None:
            self._end_stream(Ending.DISCONNECT)
        self._abort_later()

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - asyncio's signature
        """Offer room for one small read."""
        return _room

    def buffer_updated(self, nbytes: int) -> None:
        """Take what one read brought, piece by piece: the stream may end with each."""
        received = bytes(_room[:nbytes])
        for start in range(0, nbytes, PARSED_BYTES):
            self.data_received(received[start : start + PARSED_BYTES])

    def data_received(self, data: bytes) -> None:
        """Parse what arrived, unless the stream has ended; notice at once if it ends now."""
        if self._ignores_input:
            return
        if self.request is None and self._passes_head_limit(len(data)):
            self._refuse_head()
            return
        super().data_received(data)
        if self._failed_before_its_answer():
            self.transport.abort()
            return
        if self._ending is None and (self._failure or self.protocol.state is CLOSING):
            self._notice_end()

    def process_event(self, event: Event) -> None:
        """Pass on one frame, if its budget allows."""
        if self._ending is not None:
            return  # sent after the end, in the same read
        if not isinstance(event, Frame):
            super().process_event(event)
        elif self._is_on_budget(event) and not self._budget.take(self.loop.time()):
            self._end_stream(Ending.RATE_LIMITED)
        elif event.opcode in DATA_OPCODES:
            self.recv_messages.put(event)

    def send_data(self) -> None:
        """Send all that waits in one write, because a flood of pings makes a flood of pongs.

        Sends nothing to a client that has gone, because asyncio would log each attempt.
        """
        writes = self.protocol.data_to_send()
        if not writes or self.transport.is_closing():
            return
        if data := b"".join(writes):
            self.transport.write(data)
        if SEND_EOF in writes:
            with contextlib.suppress(OSError):  # gone meanwhile
                self.transport.write_eof()

    def pause_writing(self) -> None:
        """Abort a client that lets more than `WRITE_LIMIT_BYTES` wait."""
        super().pause_writing()
        self.transport.abort()

    # Inside

    def _passes_head_limit(self, more: int) -> bool:
        self._head_bytes += more
        return self._head_bytes > MAX_HEAD_BYTES

    def _refuse_head(self) -> None:
        """Answer as the library does to too large a header, and drop whatever else comes.

        It reads on for a moment, because a reset could overtake the answer.
        """
        self._head_too_large = True
        if self.protocol.state is CONNECTING and not self.protocol.eof_sent:
            status = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
            self.protocol.send_response(
                self.protocol.reject(status, f"expected at most {MAX_HEAD_BYTES} bytes\n")
            )
            self.send_data()
        self._abort_later()

    @staticmethod
    def _is_on_budget(frame: Frame) -> bool:
        """Tell whether this is a control frame, an empty message, or a tiny fragment.

        An empty final fragment is none: some honest clients end every fragmented message so.
        """
        if frame.opcode not in DATA_OPCODES:
            return frame.opcode is not CLOSE
        if not frame.fin:
            return len(frame.data) < _TINY_FRAGMENT_BYTES
        return not frame.data and frame.opcode is not CONT

    def _failed_before_its_answer(self) -> bool:
        """Tell whether bytes behind a request have ended the connection before its answer.

        The library has ended its side then, and would log a traceback when it answers.
        """
        return self.request is not None and self.response is None and self.protocol.eof_sent

    @property
    def _ignores_input(self) -> bool:
        """Whether nothing more is parsed: after a flood, a bad frame or too large a head."""
        return (
            self._failure is not None or self._ending is Ending.RATE_LIMITED or self._head_too_large
        )

    def _hold_failure(self, code: CloseCode | int, reason: str = "") -> None:
        """Hold a bad frame's failure back; the parser calls it in place of `protocol.fail`.

        From then on the parser only waits for the end of the data. Outside of an open connection,
        and for the end itself, the library fails as always.
        """
        if self.protocol.state is not OPEN or code == CloseCode.ABNORMAL_CLOSURE:
            ServerProtocol.fail(self.protocol, code, reason)
            return
        self._failure = (code, reason)
        self.protocol.reader.discard()
        self.protocol.parser = self.protocol.parse()
        next(self.protocol.parser)

    def _notice_end(self) -> None:
        failure = self.protocol.parser_exc
        if isinstance(failure, PayloadTooBig):
            self._end_stream(Ending.CHUNK_TOO_LARGE)
        elif failure is not None:
            self._end_stream(Ending.PROTOCOL_ERROR)
        elif self.protocol.close_rcvd is not None:
            self._end_stream(Ending.DISCONNECT)
            self._abort_later()

    def _end_badly(self, code: CloseCode, reason: str) -> None:
        """End the stream for a fault that only a whole message shows; drop the frames behind it."""
        self._failure = (code, reason)
        self._end_stream(Ending.PROTOCOL_ERROR)
        self.recv_messages.frames.queue.clear()
        self.recv_messages.maybe_resume()  # or nobody would notice that the client leaves

    def _fail(self, code: CloseCode | int, reason: str) -> None:
        """Send a close and end this side of TCP; the client may keep its side for a while."""
        ServerProtocol.fail(self.protocol, code, reason)
        self.send_data()
        self._abort_later()

    def _end_stream(self, ending: Ending) -> None:
        self._ending = ending
        self.recv_messages.close()
        self.stream_ended.set()

    def _abort_later(self) -> None:
        if self._abort_timer is None:
            self._abort_timer = self.loop.call_later(self._close_timeout, self.transport.abort)
