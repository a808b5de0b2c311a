"""Why a stream had no final message. Raised by `client`, which has them all under its name."""


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
