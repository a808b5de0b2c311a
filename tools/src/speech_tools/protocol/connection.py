"""Open a WebSocket to whatever answers at a gateway's URL, or say in one line why there is none.

Used by `client`, and by the subcommands that look at a connection itself. Exceptions of the library
and of the system become errors of ours here.
"""

import os
import socket
import ssl
from collections.abc import Mapping
from typing import Any, cast
from urllib.parse import urlencode, urlsplit, urlunsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidHandshake, InvalidMessage, InvalidStatus, InvalidURI
from websockets.frames import Frame, Opcode
from websockets.protocol import Event

from speech_tools.protocol import messages
from speech_tools.protocol.errors import NotAGateway, Refused, Unreachable, WrongUrl
from speech_tools.protocol.messages import SUBPROTOCOL

OPEN_TIMEOUT_SECONDS = 10.0
CLOSE_TIMEOUT_SECONDS = 5.0
PING_SECONDS = 10.0
"""From ping to ping; a network that swallows everything is noticed 20 s after one."""
MAX_PINGS = 1_000
"""The most pings of one connection. A gateway sends none. A proxy may send a few."""
_SHOWN_CHARACTERS = 200
"""The most that is shown of what answers, which may be no gateway."""
_EXPECTED = "expected ws://HOST:PORT/ws/audio (or wss://)"


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
        raise WrongUrl(f"{url}: {_EXPECTED}")
    added = urlencode({name: value for name, value in query.items() if value is not None})
    return urlunsplit(parts._replace(query="&".join(filter(None, (parts.query, added)))))


class Connection(ClientConnection):
    """Answers a bounded number of pings: unread pongs pile up, and nothing else gets its turn."""

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


class ConnectOnce(connect):
    """Connects to the given URL only, not to where a server redirects."""

    def process_redirect(self, exc: Exception) -> Exception | str:
        """Treat a redirect as a refusal: somebody else would get the audio."""
        return exc


def connect_options() -> dict[str, Any]:
    """Return what the library is told for each connection to a gateway."""
    return {
        "compression": None,
        "ping_interval": PING_SECONDS,
        "open_timeout": OPEN_TIMEOUT_SECONDS,
        "close_timeout": CLOSE_TIMEOUT_SECONDS,
        "create_connection": Connection,
        "proxy": None,  # the gateway is on a trusted network, not behind the way out
    }


async def open_connection(
    url: str, source: str | None = None, headers: Mapping[str, str] | None = None
) -> Connection:
    """Connect to a gateway; the caller closes what is returned.

    Args:
        url: as `check_url` returns it.
        source: address of this machine to connect from; nothing for whatever the system chooses.
        headers: of the request, beside those of the protocol.

    Raises:
        StreamError: if there is no connection; its kind says why.
    """
    where = urlsplit(url).netloc.rpartition("@")[2]
    try:
        opened = await ConnectOnce(
            url,
            subprotocols=[SUBPROTOCOL],  # type: ignore[list-item] # a NewType of str
            additional_headers=headers,
            local_addr=(source, 0) if source else None,
            **connect_options(),
        )
        return cast("Connection", opened)
    except InvalidStatus as error:
        raise _refusal(error) from None
    except InvalidURI:
        raise WrongUrl(f"{url}: {_EXPECTED}") from None
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
        case ssl.SSLCertVerificationError():
            return (
                f"its certificate is not trusted: {error.verify_message}; "
                "SSL_CERT_FILE=FILE trusts another authority"
            )
        case ssl.SSLError():
            return "it does not speak TLS"
        case socket.gaierror() | UnicodeError():
            return "the host name is not known"
        case OSError(errno=int(number)):
            return os.strerror(number).lower()
        case _:  # asyncio's sum of several addresses has no errno
            return "no address of the host takes the connection"


def _refusal(error: InvalidStatus) -> Refused:
    """Read the JSON body of a refusal; a proxy's has none."""
    response = error.response
    told = messages.refusal(bytes(response.body or b""))
    phrase = response.reason_phrase[:_SHOWN_CHARACTERS]
    code, message = told or (phrase, "")
    wait = messages.retry_after(response.headers.get("Retry-After"))
    return Refused(response.status_code, code, message, wait)
