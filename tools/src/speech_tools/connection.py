"""Open a WebSocket to whatever answers at a gateway's URL, and say in one line why there is none.

Used by `client`, which speaks on it.
"""

import os
import socket
import ssl
from typing import cast
from urllib.parse import urlsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidHandshake, InvalidMessage, InvalidStatus, InvalidURI
from websockets.frames import Frame, Opcode
from websockets.protocol import Event

from speech_tools import answers
from speech_tools.answers import SUBPROTOCOL
from speech_tools.stream_errors import NotAGateway, Refused, Unreachable, WrongUrl

OPEN_TIMEOUT_SECONDS = 10.0
CLOSE_TIMEOUT_SECONDS = 5.0
MAX_PINGS = 1_000
"""Of a connection. A gateway sends none; a proxy may send a few."""

_SHOWN_CHARACTERS = 200
"""Of what somebody else than a gateway has said."""


class Connection(ClientConnection):
    """Answers no pings without end: unread pongs pile up, and nothing else gets its turn."""

    _pings = 0

    def process_event(self, event: Event) -> None:
        """Take one frame, unless there are too many pings."""
        if isinstance(event, Frame) and event.opcode is Opcode.PING:
            self._pings += 1
            if self.floods:
                self.transport.abort()
        super().process_event(event)

    @property
    def floods(self) -> bool:
        """Whether there have been too many pings, so that the connection was aborted."""
        return self._pings > MAX_PINGS


class _ConnectOnce(connect):
    """Connects where it was told to, and nowhere that a server sends it."""

    def process_redirect(self, exc: Exception) -> Exception | str:
        """Take a redirect for the refusal that it is: somebody else would get the audio."""
        return exc


async def open_at(url: str) -> Connection:
    """Return an open connection, whose compression and redirects are declined.

    Raises:
        StreamError: There is none; its kind says why.
    """
    where = urlsplit(url).netloc.rpartition("@")[2]
    try:
        opened = await _ConnectOnce(
            url,
            subprotocols=[SUBPROTOCOL],  # type: ignore[list-item] # a NewType of str
            compression=None,
            open_timeout=OPEN_TIMEOUT_SECONDS,
            close_timeout=CLOSE_TIMEOUT_SECONDS,
            create_connection=Connection,
            proxy=None,  # the gateway is on a trusted network, not behind the way out
        )
        return cast("Connection", opened)
    except InvalidStatus as error:
        raise _refusal(error) from None
    except InvalidURI:
        raise WrongUrl(f"{url}: expected ws://HOST:PORT/ws/audio (or wss://)") from None
    except (InvalidMessage, EOFError):
        raise NotAGateway(f"what answers at {where} is not a WebSocket server") from None
    except InvalidHandshake as error:
        why = str(error)[:_SHOWN_CHARACTERS]
        raise NotAGateway(f"the handshake with {where} failed: {why}") from None
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
    told = answers.refusal(bytes(response.body or b""))
    return Refused(
        response.status_code, *(told or (response.reason_phrase[:_SHOWN_CHARACTERS], ""))
    )
