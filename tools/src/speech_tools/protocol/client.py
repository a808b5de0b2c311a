"""Speak one utterance to a gateway as docs/protocol.md asks, and return how it ended.

`stream()` is the whole of it: connect, obey the greeting, send at the pace of speech or as fast as
the limits permit, wait for the final message. It keeps no state, so many may run at once. Used by
`speech stream`, by `speech demo` and by `speakers`.
"""

import asyncio
import contextlib
import json
from collections.abc import Iterator

from speech_lib.events import BYTES_PER_SECOND
from websockets.exceptions import ConnectionClosed

from speech_tools.protocol import messages
from speech_tools.protocol.connection import (
    CLOSE_TIMEOUT_SECONDS,
    Connection,
    check_url,
    open_connection,
)
from speech_tools.protocol.errors import (
    NoAnswer,
    NotAGateway,
    Refused,
    StreamError,
    TooLong,
    Unreachable,
    WrongUrl,
)
from speech_tools.protocol.messages import SUBPROTOCOL, AnswerError, Answers, Frame, Limits
from speech_tools.protocol.outcome import NOTHING_MORE, Hooks, Outcome, Wanted
from speech_tools.protocol.pace import Pace

__all__ = [
    "SUBPROTOCOL",
    "Frame",
    "Hooks",
    "NoAnswer",
    "NotAGateway",
    "Outcome",
    "Refused",
    "StreamError",
    "TooLong",
    "Unreachable",
    "Wanted",
    "WrongUrl",
    "check_url",
    "stream",
]

ANSWER_TIMEOUT_SECONDS = 60.0
"""For the greeting, and from the end of the sending to the final message."""

_CLIENTS_FAULT = frozenset({1002, 1003, 1007, 1008, 1009})  # RFC 6455 section 7.4.1
_SERVERS_FAULT = frozenset({1002, 1007, 1009})
"""What our own side closes with where the frames of the other one cannot be taken."""

MAX_MESSAGES = 100
"""Of a connection. A gateway sends three."""


async def stream(
    url: str,
    pcm: bytes,
    *,
    paced: bool,
    live: bool = False,
    wanted: Wanted = NOTHING_MORE,
    source: str | None = None,
    hooks: Hooks | None = None,
) -> Outcome:
    """Send one utterance and return how it ended.

    Safe to cancel: the connection is closed, and the gateway stores what it has received.

    Args:
        url: of the gateway, `ws://HOST:PORT/ws/audio`.
        pcm: the samples, as `audio.load` returns them.
        paced: at the pace of speech; otherwise as fast as the greeting's limits permit.
        live: keep the pace of speech also while the gateway drains, as a microphone has to.
        wanted: what to ask for in the query.
        source: address of this machine to connect from; nothing for whatever the system chooses.
        hooks: what to call on the way.

    Raises:
        StreamError: if there is no final message; its kind says why.
    """
    checked = check_url(url, wanted.query())
    connection = await open_connection(checked, source)
    try:
        async with connection:
            try:
                utterance = _Utterance(
                    connection, pcm, hooks or Hooks(), live=live, results=wanted.results
                )
                return await utterance.speak(paced=paced)
            except NotAGateway:
                connection.transport.abort()  # it need not agree to the end
                raise
    finally:  # a task that is cancelled while it closes would leave the socket open
        connection.transport.abort()


@contextlib.contextmanager
def _judged() -> Iterator[None]:
    try:
        yield
    except AnswerError as error:
        raise NotAGateway(f"what answers {error}") from None


class _Utterance:
    """One connection from the greeting to the close."""

    def __init__(
        self, connection: Connection, pcm: bytes, hooks: Hooks, *, live: bool, results: bool
    ) -> None:
        self._connection = connection
        self._pcm = pcm
        self._hooks = hooks
        self._live = live
        self._sent = 0
        self._complete = False
        self._answers = Answers("", results=results)
        self._hurry = asyncio.Event()
        self._result_seconds = 0.0

    async def speak(self, *, paced: bool) -> Outcome:
        """Send everything while listening. The first final message ends it."""
        limits = await self._greeting()
        self._check_length(limits, paced=paced)
        if not paced:
            self._hurry.set()
        listener = asyncio.create_task(self._listen())
        sender = asyncio.create_task(self._send(limits))
        try:
            await asyncio.wait({listener, sender}, return_when=asyncio.FIRST_COMPLETED)
            if sender.done():
                sender.result()  # raises what is a defect of ours
            async with asyncio.timeout(ANSWER_TIMEOUT_SECONDS + self._result_seconds):
                await listener
        except TimeoutError:
            raise NoAnswer(
                f"no answer in {ANSWER_TIMEOUT_SECONDS:g} s after the end; it may be stored",
                clients_fault=False,
            ) from None
        finally:
            sender.cancel()
            listener.cancel()
            await asyncio.gather(sender, listener, return_exceptions=True)
        with contextlib.suppress(TimeoutError):  # the close is the gateway's to begin
            async with asyncio.timeout(CLOSE_TIMEOUT_SECONDS):
                await self._connection.wait_closed()
        assert self._answers.receipt is not None  # noqa: S101 - the listener has ended well
        return Outcome(
            self._answers.receipt,
            self._pcm[: self._sent],
            self._complete,
            self._connection.close_code or 1006,
            self._connection.close_reason or "",
            self._answers.result,
        )

    async def _greeting(self) -> Limits:
        try:
            # Not `wait_for`: before Python 3.12 it can swallow a cancellation, as by Ctrl-C.
            async with asyncio.timeout(ANSWER_TIMEOUT_SECONDS):
                frame = await self._receive()
        except TimeoutError:
            raise NotAGateway("connected, but there was no greeting") from None
        with _judged():
            limits = messages.greeting(frame)
        self._answers.correlation_id = frame["correlation_id"]
        self._result_seconds = limits.result_seconds
        self._hooks.frame(frame)
        return limits

    def _check_length(self, limits: Limits, *, paced: bool) -> None:
        longest, seconds = limits.max_audio_bytes, len(self._pcm) / BYTES_PER_SECOND
        if len(self._pcm) > longest:
            raise TooLong(
                f"the recording lasts {seconds:.1f} s ({len(self._pcm)} bytes), "
                f"the gateway takes {longest / BYTES_PER_SECOND:.1f} s ({longest} bytes)"
            )
        if paced and seconds >= limits.max_session_seconds:
            raise TooLong(
                f"the recording lasts {seconds:.1f} s and a session "
                f"{limits.max_session_seconds:g} s: it cannot be sent at the pace of speech"
            )

    async def _listen(self) -> None:
        """Return after the final message, or at the end of a connection with a receipt."""
        for _ in range(MAX_MESSAGES):
            try:
                frame = await self._receive()
            except NoAnswer:
                if self._answers.receipt is None:
                    raise
                return  # it is stored, and the text is on the topic
            with _judged():
                self._answers.take(frame)
            self._hooks.frame(frame)
            if self._answers.complete:
                return
            if frame.get("status") == "draining" and not self._live:
                self._hurry.set()  # a recording need not wait for its own sound
        raise NotAGateway("what answers sends messages without end")

    async def _receive(self) -> Frame:
        try:
            message = await self._connection.recv()
        except ConnectionClosed as closed:
            raise self._ended(closed) from None
        with _judged():
            return messages.read(message)

    def _ended(self, closed: ConnectionClosed) -> StreamError:
        """Return what to make of a connection that ended before the final message."""
        if self._connection.floods:
            return NotAGateway("what answers sends pings without end")
        if closed.sent and not closed.rcvd_then_sent and closed.sent.code in _SERVERS_FAULT:
            return NotAGateway("what answers breaks the WebSocket protocol")
        code = self._connection.close_code or 1006
        reason = f' "{self._connection.close_reason}"' if self._connection.close_reason else ""
        return NoAnswer(
            f"the connection ended with {code}{reason} and no final message",
            clients_fault=code in _CLIENTS_FAULT,
        )

    async def _send(self, limits: Limits) -> None:
        """Send the samples, then `done`. End early where the gateway has ended it."""
        pace = Pace(limits)
        try:
            while self._sent < len(self._pcm):
                end = self._sent + pace.chunk_bytes(hurry=self._hurry.is_set())
                chunk = self._pcm[self._sent : end]
                await pace.wait(len(chunk), self._hurry)
                await self._connection.send(chunk)
                self._sent += len(chunk)
                self._hooks.progress(self._sent)
            await self._connection.send(json.dumps({"event": "done"}))
            self._complete = True
        except ConnectionClosed:
            pass  # the listener knows why
