"""One WebSocket connection: `websockets`' own, with bounds on what one client can cost.

The server builds it through `create_connection=`. It hands each message to its listener, the
driver, in the turn of the loop in which the message arrives. It alone uses the insides of
`websockets` (`process_event`, `data_received`, `send_data`, `protocol.fail`, `protocol.parser`);
`tests/test_connection_pins.py` pins each. It adds to the library's connection:

* It bounds the head of a request before the library parses it. 100 lines of 8 KiB, on a hundred
  connections, are more memory than the container has.
* It reads little at a time (`reading`), and parses little of that before it checks its budget.
* It has a budget for control frames, empty messages and tiny fragments. The library answers the
  first unseen, and no other limit counts the last.
* It aborts a client that does not read, because pongs would pile up in memory.
* It knows at once how a stream ended. The library waits until the client closes TCP.
* It holds a failure for a bad frame back until the driver calls `fail`, because what came before
  may have ended the utterance.
* It gives its slot back when the transport is closed, also where no handler ever ran.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from http import HTTPStatus
from typing import Any

from websockets.asyncio.server import ServerConnection
from websockets.exceptions import PayloadTooBig, TooManyFragments
from websockets.frames import DATA_OPCODES, CloseCode, Frame
from websockets.protocol import CLOSING, CONNECTING, OPEN, SEND_EOF, Event
from websockets.server import ServerProtocol

from speech_gateway.admission import Slot, UnfinishedHandshakes
from speech_gateway.errors import Ending
from speech_gateway.frames import FrameSplitter, MessageAssembler, is_on_budget
from speech_gateway.rates import TokenBucket
from speech_gateway.reading import EarlyMessages, Listener, ReadPause, SmallReads
from speech_gateway.utterance import Wanted

MAX_HEAD_BYTES = 16_384
"""Of a request: twice what browsers and proxies send at most."""
_BLANK_LINE = b"\r\n\r\n"
WRITE_LIMIT_BYTES = 65_536

_ABORT_AFTER_SECONDS = 0.25
"""Time for the last message to a client, before the gateway aborts its transport."""

_BUDGET_BURST = 40
_BUDGET_PER_SECOND = 20


class GatewayConnection(ServerConnection):
    """A server connection with budgets, bounds and a slot; see the module."""

    slot: Slot | None = None
    """Held by the transport from just before the 101 until the connection is lost."""

    wanted: Wanted
    """What the handshake asked for, once it was judged acceptable."""

    _listener: Listener

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
        self._head_end = b""
        self._budget = TokenBucket(_BUDGET_BURST, _BUDGET_PER_SECOND, self.loop.time())
        self._ending: Ending | None = None
        self._failure: tuple[int, str] | None = None
        """What the library would have failed the connection with; no byte counts after it."""
        # By `setattr`, as the library shadows `select_subprotocol`.
        setattr(self.protocol, "fail", self._hold_failure)  # noqa: B010
        self._abort_timer: asyncio.TimerHandle | None = None
        self._splitter = FrameSplitter(self.protocol.max_message_size or sys.maxsize)
        self._assembler = MessageAssembler()

    # What the driver calls

    def listen(self, listener: Listener) -> None:
        """Hand all messages to `listener`, from the first one on, and then the end."""
        early, self._listener = self._early, listener
        self._pause.end()
        early.pass_on(listener)

    def say(self, text: str) -> None:
        """Send a message, unless the connection is closing or gone."""
        if self.protocol.state is OPEN:
            self.protocol.send_text(text.encode())
            self.send_data()

    @property
    def stream_ended(self) -> bool:
        """Whether no more messages will come."""
        return self._ending is not None

    def read_later(self, at: float) -> None:
        """Read nothing before `at`, on the loop's clock, unless the stream has ended."""
        if self._ending is None:
            self._pause.hold(at)

    def fail(self) -> None:
        """Fail the connection (RFC 6455 section 7.1.7) if a bad frame ended the stream.

        The driver calls it once the messages before that frame have not ended the utterance.
        """
        if self._failure is not None and self._ending is not Ending.RATE_LIMITED:
            self._fail(*self._failure)

    async def close(self, code: int = CloseCode.NORMAL_CLOSURE, reason: str = "") -> None:
        """Close the connection; without the client's close frame where nothing more is read."""
        if self._ending is not None and self.protocol.state is OPEN:
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
        self.transport.set_protocol(SmallReads(self))
        self._pause = ReadPause(self.transport, self.loop)
        self._early = EarlyMessages(self._pause, self.loop)
        self._listener = self._early
        self._handshakes.begin(self, self.peer)

    def connection_lost(self, exc: Exception | None) -> None:
        """Release all that the transport holds, also where the library's part raises."""
        try:
            super().connection_lost(exc)
        finally:
            self._handshakes.end(self)
            self._pause.cancel()
            if self._abort_timer is not None:
                self._abort_timer.cancel()
            if self.slot is not None:
                self.slot.release()
            self._ending = self._ending or Ending.DISCONNECT
            self._listener.lost()

    def eof_received(self) -> None:
        """End the stream: the client will send no more. Data to send may still wait."""
        super().eof_received()
        if self._ending is None:
            self._end_stream(Ending.DISCONNECT)
        self._abort_later()

    def bytes_received(self, data: bytes) -> None:
        """Take what one read brought, message by message: the stream may end with each."""
        frames = data if self.request is not None else self._take_head(data)
        for is_message, part in self._splitter.split(frames):
            if self._ending is not None:
                return
            if is_message:
                self._listener.receive(part)
            else:
                self.data_received(part)

    def data_received(self, data: bytes) -> None:
        """Parse what arrived, unless the stream has ended; notice at once if it ends now."""
        if self._ending is not None:
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
        elif is_on_budget(event) and not self._budget.take(self.loop.time()):
            self._end_stream(Ending.RATE_LIMITED)
        elif event.opcode in DATA_OPCODES:
            self._take_frame(event)

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
            with contextlib.suppress(OSError, RuntimeError):  # gone meanwhile
                self.transport.write_eof()

    def pause_writing(self) -> None:
        """Abort a client that lets more than `WRITE_LIMIT_BYTES` wait."""
        super().pause_writing()
        self.transport.abort()

    # Inside

    def _take_head(self, data: bytes) -> bytes:
        """Parse what arrived of the request, and return what is behind it."""
        if self._head_bytes > MAX_HEAD_BYTES:
            return b""
        seen = self._head_end + data
        end = seen.find(_BLANK_LINE)
        cut = len(data) if end < 0 else end + len(_BLANK_LINE) - len(self._head_end)
        self._head_end = seen[1 - len(_BLANK_LINE) :]
        self._head_bytes += cut
        if self._head_bytes > MAX_HEAD_BYTES:
            self._refuse_head()
            return b""
        self.data_received(data[:cut])
        return data[cut:]

    def _refuse_head(self) -> None:
        """Answer as the library does to too large a header, and drop whatever else comes.

        It reads on for a moment, because a reset could overtake the answer.
        """
        if self.protocol.state is CONNECTING and not self.protocol.eof_sent:
            status = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
            self.protocol.send_response(
                self.protocol.reject(status, f"expected at most {MAX_HEAD_BYTES} bytes\n")
            )
            self.send_data()
        self._abort_later()

    def _take_frame(self, frame: Frame) -> None:
        """Hand on the message that a frame ends; only whole ones show what is wrong with some."""
        try:
            message = self._assembler.add(frame)
        except UnicodeDecodeError as error:
            reason = f"{error.reason} at position {error.start}"
            self._failure = (CloseCode.INVALID_DATA, reason)
        except TooManyFragments:
            self._failure = (CloseCode.MESSAGE_TOO_BIG, "too many fragments")
        else:
            if message is not None:
                self._listener.receive(message)
            return
        self._end_stream(Ending.PROTOCOL_ERROR)

    def _failed_before_its_answer(self) -> bool:
        """Tell whether bytes behind a request have ended the connection before its answer.

        The library has ended its side then, and would log a traceback when it answers.
        """
        return self.request is not None and self.response is None and self.protocol.eof_sent

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

    def _fail(self, code: CloseCode | int, reason: str) -> None:
        """Send a close and end this side of TCP; the client may keep its side for a while."""
        ServerProtocol.fail(self.protocol, code, reason)
        self.send_data()
        self._abort_later()

    def _end_stream(self, ending: Ending) -> None:
        self._ending = ending
        self._pause.end()  # or nobody would notice that the client leaves
        self._listener.end(ending)

    def _abort_later(self) -> None:
        if self._abort_timer is None:
            self._abort_timer = self.loop.call_later(self._close_timeout, self.transport.abort)
