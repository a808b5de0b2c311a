"""Speak one utterance to the gateway as `docs/protocol.md` asks, and say what came of it.

The wire is `speech-ingress.v1`. `stream()` is the whole of it: connect, obey the greeting, send at
the pace of speech or as fast as the limits permit, wait for the final message. Used by `stream.py`
and the demo; a tool that measures may call it many times at once, for it keeps no state.
"""

import asyncio
import contextlib
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from urllib.parse import urlencode, urlsplit, urlunsplit

from websockets.exceptions import (
    ConnectionClosed,
)

from speech_tools import answers, connection
from speech_tools.answers import SUBPROTOCOL, AnswerError, Frame
from speech_tools.audio import BYTES_PER_SECOND
from speech_tools.pace import Limits, Pace
from speech_tools.stream_errors import (
    NoAnswer,
    NotAGateway,
    Refused,
    StreamError,
    TooLong,
    Unreachable,
    WrongUrl,
)

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


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an utterance ended.

    Attributes:
        final: the final message, `accepted` or `error`.
        sent: the samples that were handed to the connection, a prefix of the recording.
        complete: whether all of it, and `done`, were sent.
        close_code: of the close frame.
        close_reason: of the close frame.
    """

    final: Frame
    sent: bytes = field(repr=False)
    complete: bool
    close_code: int
    close_reason: str

    @property
    def receipt_matches(self) -> bool:
        """Whether the receipt is about the very samples that were sent, or the first of them."""
        stored = self.sent[: self.final["audio_bytes"]]
        return (len(stored), hashlib.sha256(stored).hexdigest()) == (
            self.final["audio_bytes"],
            self.final["sha256"],
        )


@dataclass(frozen=True, slots=True)
class Hooks:
    """What the caller wants to see while it happens; called on the event loop, so quickly.

    Attributes:
        frame: a message from the gateway, as it arrives.
        progress: how many bytes of audio have been sent so far.
    """

    frame: Callable[[Frame], None] = lambda _frame: None
    progress: Callable[[int], None] = lambda _bytes: None


def check_url(url: str, query: Mapping[str, str | None]) -> str:
    """Return `url` with those parameters of `query` that are set.

    Raises:
        WrongUrl: if it cannot be a WebSocket's.
    """
    try:
        parts = urlsplit(url)
        valid = parts.scheme in {"ws", "wss"} and parts.hostname and parts.port != 0
    except ValueError:  # brackets that are not closed, a port over 65535
        valid = False
    if not valid or parts.fragment:
        raise WrongUrl(f"{url}: expected ws://HOST:PORT/ws/audio (or wss://)")
    added = urlencode({name: value for name, value in query.items() if value is not None})
    return urlunsplit(parts._replace(query="&".join(filter(None, (parts.query, added)))))


async def stream(
    url: str, pcm: bytes, *, paced: bool, language: str | None = None, hooks: Hooks | None = None
) -> Outcome:
    """Send one utterance and return how it ended.

    Safe to cancel: the connection is closed, and the gateway stores what it has received.

    Args:
        url: of the gateway, `ws://HOST:PORT/ws/audio`.
        pcm: the samples, as `speech_tools.audio` makes them.
        paced: at the pace of speech; otherwise as fast as the greeting's limits permit.
        language: BCP 47 tag, a hint for whoever recognises.
        hooks: what to call on the way.

    Raises:
        StreamError: if there is no final message; its kind says why.
    """
    async with await connection.open_at(check_url(url, {"language": language})) as opened:
        try:
            return await _Utterance(opened, pcm, hooks or Hooks()).speak(paced=paced)
        except NotAGateway:
            opened.transport.abort()  # it need not agree to the end
            raise


@contextlib.contextmanager
def _judged() -> Iterator[None]:
    try:
        yield
    except AnswerError as error:
        raise NotAGateway(f"what answers {error}") from None


class _Utterance:
    """One connection from the greeting to the close."""

    def __init__(self, opened: connection.Connection, pcm: bytes, hooks: Hooks) -> None:
        self._connection = opened
        self._pcm = pcm
        self._hooks = hooks
        self._sent = 0
        self._complete = False
        self._correlation_id = ""
        self._hurry = asyncio.Event()

    async def speak(self, *, paced: bool) -> Outcome:
        """Send everything while listening; the first final message ends it."""
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
            async with asyncio.timeout(ANSWER_TIMEOUT_SECONDS):
                final = await listener
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
            async with asyncio.timeout(connection.CLOSE_TIMEOUT_SECONDS):
                await self._connection.wait_closed()
        return Outcome(
            final,
            self._pcm[: self._sent],
            self._complete,
            self._connection.close_code or 1006,
            self._connection.close_reason or "",
        )

    async def _greeting(self) -> Limits:
        try:
            # Not `wait_for`: before Python 3.12 it can swallow a cancellation, as by Ctrl-C.
            async with asyncio.timeout(ANSWER_TIMEOUT_SECONDS):
                frame = await self._receive()
        except TimeoutError:
            raise NotAGateway("connected, but there was no greeting") from None
        with _judged():
            limits = answers.greeting(frame)
        self._correlation_id = frame["correlation_id"]
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

    async def _listen(self) -> Frame:
        """Return the final message."""
        for _ in range(MAX_MESSAGES):
            frame = await self._receive()
            with _judged():
                final = answers.is_final(frame, self._correlation_id)
            self._hooks.frame(frame)
            if final:
                return frame
            if frame.get("status") == "draining":
                self._hurry.set()  # a recording need not wait for its own sound
        raise NotAGateway("what answers sends messages without end")

    async def _receive(self) -> Frame:
        try:
            message = await self._connection.recv()
        except ConnectionClosed as closed:
            raise self._ended(closed) from None
        with _judged():
            return answers.read(message)

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
        """Send the samples, then `done`; end early where the gateway has ended it."""
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
