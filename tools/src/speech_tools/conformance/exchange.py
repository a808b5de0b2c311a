"""What a check does to a gateway, and the record of every frame that passed meanwhile.

Used by the checks. It knows of RFC 6455 and HTTP, and nothing of what is right.
"""

import asyncio
import http.client
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any
from urllib.parse import urlsplit

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus
from websockets.typing import Subprotocol

from speech_tools.protocol import messages
from speech_tools.protocol.connection import ConnectOnce, check_url, connect_options
from speech_tools.protocol.messages import SUBPROTOCOL, AnswerError, Answers, Frame

ANSWER_SECONDS = 15.0
"""Within which anything is answered that has no clock of its own: longer than a delivery."""
_ATTEMPTS = 5
_LONGEST_PAUSE_SECONDS = 5.0
_NOT_NOW = frozenset({429, 503})
_SHOWN_BYTES, _SHOWN_CHARACTERS = 8, 400
UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}
"""What makes a request a WebSocket's; the key is the example of RFC 6455."""


class Violation(Exception):
    """The gateway does not do what the document says; the text is a sentence for a person."""


class NotTestable(Exception):
    """This deployment does not show what the check is about; the text says why."""


@dataclass(frozen=True, slots=True)
class Target:
    """The deployment: where it is, and what it asks of its clients."""

    url: str
    api_key: str | None = field(default=None, repr=False)
    origin: str | None = None

    def headers(self) -> dict[str, str]:
        """Return what each request brings."""
        told = {"Origin": self.origin, "X-API-Key": self.api_key}
        return {name: value for name, value in told.items() if value is not None}


@dataclass(frozen=True, slots=True)
class Answer:
    """The HTTP answer to a request."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def told(self) -> tuple[int, str | None]:
        """The status, and the code of the JSON body where it has one."""
        told = messages.refusal(self.body)
        return self.status, told[0] if told else None


@dataclass(frozen=True, slots=True)
class Ended:
    """What came until the connection was closed."""

    messages: tuple[Frame, ...]
    code: int | None
    reason: str

    @property
    def statuses(self) -> list[Any]:
        """The status of each message."""
        return [each.get("status") for each in self.messages]


class Exchange:
    """One connection, after its greeting.

    Attributes:
        greeting: The first message.
        connection: The library's.
    """

    def __init__(self, connection: ClientConnection, trace: list[str]) -> None:
        self.connection = connection
        self.greeting: Frame = {}
        self._answers: Answers | None = None
        self._trace = trace

    async def begin(self, *, results: bool) -> None:
        """Read the greeting; from now on each message is held to what may follow it."""
        self.greeting = await self.hear()
        self._answers = Answers(self.greeting["correlation_id"], results)

    async def say(self, *messages_: str | bytes) -> None:
        """Send messages, until the gateway closes."""
        with suppress(ConnectionClosed):
            for message in messages_:
                self._trace.append(f"→ {_shown(message)}")
                await self.connection.send(message)

    async def repeat(self, message: bytes, seconds: float) -> None:
        """Send a message again and again, with so long a pause, until the gateway closes."""
        with suppress(ConnectionClosed):
            while True:
                await self.connection.send(message)
                await asyncio.sleep(seconds)

    async def is_ponged(self) -> bool:
        """Send a ping; return whether its pong came in time."""
        with suppress(TimeoutError, ConnectionClosed):
            async with asyncio.timeout(ANSWER_SECONDS):
                await (await self.connection.ping(b"conformance"))
                return True
        return False

    def send_raw(self, frame: bytes) -> None:
        """Send the bytes of a frame that no library sends."""
        self._trace.append(f"→ a frame of the bytes {frame.hex(' ')}")
        self.connection.transport.write(frame)

    async def hear(self, seconds: float = ANSWER_SECONDS) -> Frame:
        """Return the next message.

        Raises:
            Violation: There is none in time, or it is no message of the protocol.
        """
        message = await self._next(seconds)
        if message is None:
            raise Violation(f"it closed ({self._closed()}) where a message was due")
        return message

    async def end(self, seconds: float = ANSWER_SECONDS) -> Ended:
        """Return all messages until the close, and the close."""
        heard: list[Frame] = []
        while (message := await self._next(seconds)) is not None:
            heard.append(message)
        close = self.connection.close_code, self.connection.close_reason or ""
        self._trace.append(f"← close {close[0]} {close[1]}")
        return Ended(tuple(heard), *close)

    async def _next(self, seconds: float) -> Frame | None:
        try:
            async with asyncio.timeout(seconds):
                message = await self.connection.recv()
        except TimeoutError:
            raise Violation(f"nothing came within {seconds:g} s") from None
        except ConnectionClosed:
            return None
        self._trace.append(f"← {_shown(message)}")
        try:
            frame = messages.read(message)
            if self._answers is None:
                messages.greeting(frame)
            else:
                self._answers.take(frame)
        except AnswerError as error:
            raise Violation(f"what answers {error}") from None
        return frame

    def _closed(self) -> str:
        return f"{self.connection.close_code} {self.connection.close_reason or ''}".strip()


@dataclass
class Gateway:
    """The deployment, as one check meets it.

    Attributes:
        trace: Each request, answer and frame, in one line each.
    """

    target: Target
    trace: list[str] = field(default_factory=list)

    @property
    def path(self) -> str:
        """Of the WebSocket."""
        return urlsplit(self.target.url).path or "/"

    async def ask(
        self,
        path: str | None = None,
        *,
        method: str = "GET",
        headers: Mapping[str, str] = UPGRADE,
    ) -> Answer:
        """Send a request by hand and return the answer; what is refused for now is tried again."""
        for _ in range(_ATTEMPTS):
            answer = await asyncio.to_thread(self._ask, path or self.path, method, headers)
            if answer.status not in _NOT_NOW:
                return answer
            await _pause(answer.headers.get("retry-after"))
        return answer

    def _ask(self, path: str, method: str, headers: Mapping[str, str]) -> Answer:
        parts = urlsplit(self.target.url)
        assert parts.hostname  # noqa: S101 - `check_url` saw to it
        kind = http.client.HTTPSConnection if parts.scheme == "wss" else http.client.HTTPConnection
        connection = kind(parts.hostname, parts.port, timeout=ANSWER_SECONDS)
        self.trace.append(f"→ {method} {path}")
        try:
            connection.request(method, path, headers=self.target.headers() | dict(headers))
            got = connection.getresponse()
            body = b"" if got.status == http.HTTPStatus.SWITCHING_PROTOCOLS else got.read(65_536)
        except (OSError, http.client.HTTPException) as error:
            raise Violation(f"{method} {path} got no answer: {type(error).__name__}") from None
        finally:
            connection.close()
        self.trace.append(f"← {got.status} {_shown(body)}")
        return Answer(got.status, {k.lower(): v for k, v in got.getheaders()}, body)

    @asynccontextmanager
    async def open(
        self, query: str = "", headers: Mapping[str, str] = MappingProxyType({})
    ) -> AsyncIterator[Exchange]:
        """Connect, and read the greeting; at the end the connection is gone.

        Raises:
            Violation: It is refused, or there is no greeting.
        """
        connection = await self._connect(query, headers)
        exchange = Exchange(connection, self.trace)
        try:
            await exchange.begin(results="results=text" in query)
            yield exchange
        finally:
            connection.transport.abort()

    async def _connect(self, query: str, headers: Mapping[str, str]) -> ClientConnection:
        url = check_url(self.target.url, {})
        url += ("&" if "?" in url else "?") + query if query else ""
        options = {
            **connect_options(),
            "subprotocols": [Subprotocol(SUBPROTOCOL)],
            "additional_headers": self.target.headers() | dict(headers),
        }
        for _ in range(_ATTEMPTS):
            self.trace.append(f"→ connect {self.path}{'?' if query else ''}{query}")
            try:
                return await ConnectOnce(url, **options)
            except InvalidStatus as refusal:
                response = refusal.response
                told = f"{response.status_code} {_shown(bytes(response.body or b''))}"
                self.trace.append(f"← {told}")
                if response.status_code not in _NOT_NOW:
                    break
                await _pause(response.headers.get("Retry-After"))
            except (OSError, EOFError, TimeoutError, InvalidHandshake) as error:
                raise Violation(f"it cannot be connected to: {error}") from None
        raise Violation(f"it refuses the connection: {told}")


async def _pause(retry_after: str | None) -> None:
    """Wait as the gateway asks, but not for ever."""
    seconds = messages.retry_after(retry_after) or 1.0
    await asyncio.sleep(min(seconds, _LONGEST_PAUSE_SECONDS))


def _shown(message: str | bytes) -> str:
    """Return a message in a short line."""
    if isinstance(message, str):
        return _cut(message)
    try:
        return _cut(json.dumps(json.loads(message)))
    except ValueError:
        head = message[:_SHOWN_BYTES].hex(" ")
        return f"{len(message)} bytes {head}{' …' if len(message) > _SHOWN_BYTES else ''}"


def _cut(text: str) -> str:
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]} …"
