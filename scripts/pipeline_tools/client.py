"""Speak one utterance to the gateway as `docs/protocol.md` asks, and say what came of it.

The wire is `speech-ingress.v1`. `stream()` is the whole of it: connect, obey the greeting, send at
the pace of speech or as fast as the limits permit, wait for the final message. Used by `stream.py`
and the demo; a tool that measures may call it many times at once, for it keeps no state.
"""

import asyncio
import contextlib
import hashlib
import json
import os
import socket
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any
from urllib.parse import urlencode, urlsplit, urlunsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import (
    ConnectionClosed,
    InvalidHandshake,
    InvalidMessage,
    InvalidStatus,
    InvalidURI,
)

from pipeline_tools.audio import BYTES_PER_SECOND
from pipeline_tools.pace import Limits, Pace

SUBPROTOCOL = "speech-ingress.v1"
OPEN_TIMEOUT_SECONDS = 10.0
ANSWER_TIMEOUT_SECONDS = 60.0
"""For the greeting, and from the end of the sending to the final message."""

_CLIENTS_FAULT = frozenset({1002, 1003, 1007, 1008, 1009})  # RFC 6455 section 7.4.1

CLOSE_TIMEOUT_SECONDS = 5.0

Frame = dict[str, Any]


class StreamError(Exception):
    """There was no final message; the text is the one line for the user."""


class WrongUrl(StreamError):
    """The URL is not one of a gateway."""


class TooLong(StreamError):
    """The gateway's greeting says that it does not take a recording of this length."""


class Unreachable(StreamError):
    """Nobody answers at the URL, for now."""


class NotAGateway(StreamError):
    """What answers does not speak `speech-ingress.v1`."""


class NoAnswer(StreamError):
    """The connection ended, or time ran out, before the final message; it may be stored.

    Attributes:
        clients_fault: whether the close code blames the client: the same again fails again.
    """

    def __init__(self, text: str, *, clients_fault: bool) -> None:
        super().__init__(text)
        self.clients_fault = clients_fault


class Refused(StreamError):
    """The request was refused before the upgrade.

    Attributes:
        status: the HTTP status.
        code: the gateway's name for it, or the status' own where a proxy refused.
        retryable: whether the same request may succeed later.
    """

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(f"refused with HTTP {status} {code}: {message}".rstrip(": "))
        self.status = status
        self.code = code
        self.retryable = status == 429 or status >= 500  # noqa: PLR2004 - HTTP's own numbers


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
        pcm: the samples, as `pipeline_tools.audio` makes them.
        paced: at the pace of speech; otherwise as fast as the greeting's limits permit.
        language: BCP 47 tag, a hint for whoever recognises.
        hooks: what to call on the way.

    Raises:
        StreamError: if there is no final message; its kind says why.
    """
    async with await _connect(check_url(url, {"language": language})) as connection:
        return await _Utterance(connection, pcm, hooks or Hooks()).speak(paced=paced)


async def _connect(url: str) -> ClientConnection:
    where = urlsplit(url).netloc.rpartition("@")[2]
    try:
        return await connect(
            url,
            subprotocols=[SUBPROTOCOL],  # type: ignore[list-item] # a NewType of str
            compression=None,
            open_timeout=OPEN_TIMEOUT_SECONDS,
            proxy=None,  # the gateway is on a trusted network, not behind the way out
        )
    except InvalidStatus as error:
        raise _refusal(error) from None
    except InvalidURI:
        raise WrongUrl(f"{url}: expected ws://HOST:PORT/ws/audio (or wss://)") from None
    except (InvalidMessage, EOFError):
        raise NotAGateway(f"what answers at {where} is not a WebSocket server") from None
    except InvalidHandshake as error:
        raise NotAGateway(f"the handshake with {where} failed: {error}") from None
    except TimeoutError:
        raise Unreachable(f"no answer from {where} in {OPEN_TIMEOUT_SECONDS:g} s") from None
    except (OSError, UnicodeError) as error:
        raise Unreachable(f"cannot connect to {where}: {_why(error)}") from None


def _why(error: Exception) -> str:
    match error:
        case ssl.SSLError():
            return "it does not speak TLS, or its certificate is not trusted"
        case socket.gaierror() | UnicodeError():
            return "the host name is not known"
        case OSError(errno=int(number)):
            return os.strerror(number).lower()
        case _:  # asyncio's sum of several addresses has no errno
            return "no address of the host takes the connection"


def _refusal(error: InvalidStatus) -> Refused:
    """Read the JSON body of a refusal; a proxy's has none."""
    response = error.response
    try:
        body = json.loads(response.body or b"")
        code, message = str(body["code"]), str(body["message"])
    except (ValueError, KeyError, TypeError):
        code, message = response.reason_phrase, ""
    return Refused(response.status_code, code, message)


class _Utterance:
    """One connection from the greeting to the close."""

    def __init__(self, connection: ClientConnection, pcm: bytes, hooks: Hooks) -> None:
        self._connection = connection
        self._pcm = pcm
        self._hooks = hooks
        self._sent = 0
        self._complete = False
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
            async with asyncio.timeout(CLOSE_TIMEOUT_SECONDS):
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
        if (frame.get("status"), frame.get("protocol")) != ("connected", SUBPROTOCOL):
            raise NotAGateway(f"what answers does not greet as {SUBPROTOCOL}")
        try:
            return Limits(**{limit.name: frame["limits"][limit.name] for limit in fields(Limits)})
        except (KeyError, TypeError):
            raise NotAGateway("the greeting does not name the limits") from None

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
        while True:
            frame = await self._receive()
            match frame.get("status"):
                case "accepted" | "error":
                    return frame
                case "draining":
                    self._hurry.set()  # a recording need not wait for its own sound

    async def _receive(self) -> Frame:
        try:
            text = await self._connection.recv()
            frame = json.loads(text)
        except ConnectionClosed:
            code = self._connection.close_code or 1006
            reason = f' "{self._connection.close_reason}"' if self._connection.close_reason else ""
            raise NoAnswer(
                f"the connection ended with {code}{reason} and no final message",
                clients_fault=code in _CLIENTS_FAULT,
            ) from None
        except ValueError:
            raise NotAGateway("what answers sends text that is not JSON") from None
        if not isinstance(frame, dict):
            raise NotAGateway("what answers sends JSON that is not an object")
        self._hooks.frame(frame)
        return frame

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
