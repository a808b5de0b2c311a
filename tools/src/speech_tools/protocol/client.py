"""Speak one utterance to a gateway as docs/protocol.md asks, and return how it ended.

`stream()` is the whole of it: connect, obey the greeting, send at the pace of speech or as fast as
the limits permit, wait for the final message. It keeps no state, so many may run at once. Used by
`speech stream`, by `speech demo` and by `speakers`.
"""

import asyncio
import contextlib
import json
from collections.abc import Iterator

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
from speech_tools.protocol.speech import Speech, Whole

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
    speech: bytes | Speech,
    *,
    paced: bool,
    live: bool = False,
    wanted: Wanted = NOTHING_MORE,
    source: str | None = None,
    hooks: Hooks | None = None,
) -> Outcome:
    """Send one utterance and return how it ended. Safe to cancel: the connection is closed.

    Args:
        url: of the gateway, `ws://HOST:PORT/ws/audio`.
        speech: the samples, as `audio.load` returns them, or what has them in time.
        paced: at the pace of speech; otherwise as fast as the greeting's limits permit.
        live: keep the pace of speech also while the gateway drains, as a microphone has to.
        wanted: what to ask for.
        source: address of this machine to connect from, or any.
        hooks: what to call on the way.

    Raises:
        StreamError: if there is no final message; its kind says why.
    """
    checked = check_url(url, wanted.query())
    connection = await open_connection(checked, source, wanted.headers())
    whole = Whole(speech) if isinstance(speech, bytes) else speech
    utterance = _Utterance(connection, whole, hooks or Hooks(), live=live, results=wanted.results)
    try:
        async with connection:
            try:
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
        self, connection: Connection, speech: Speech, hooks: Hooks, *, live: bool, results: bool
    ) -> None:
        self._connection = connection
        self._speech = speech
        self._spoken = b""
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
        self._speech.begin(limits, paced=paced)
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
            self._spoken,
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
            if frame is self._answers.receipt:
                self._spoken = self._speech.first(self._sent)
            self._hooks.frame(frame)
            if self._answers.complete:
                return
            if frame.get("status") == "draining":
                self._drain(frame)
        raise NotAGateway("what answers sends messages without end")

    def _drain(self, frame: Frame) -> None:
        self._speech.end_within(messages.drain_seconds(frame))
        if not self._live:
            self._hurry.set()  # a recording need not wait for its own sound

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
            while chunk := await self._speech.chunk(
                self._sent, pace.chunk_bytes(hurry=self._hurry.is_set())
            ):
                await pace.wait(len(chunk), self._hurry)
                await self._connection.send(chunk)
                self._sent += len(chunk)
                self._hooks.progress(self._sent)
            await self._connection.send(json.dumps({"event": "done"}))
            self._complete = True
        except ConnectionClosed:
            pass  # the listener knows why
