"""Why an utterance had no final message. `client` raises these, and exports them."""


class StreamError(Exception):
    """There was no final message. The text is the one line for the user.

    Attributes:
        code: its kind, for reports.
    """

    code: str


class WrongUrl(StreamError):
    """The URL is not one of a gateway."""

    code = "wrong_url"


class TooLong(StreamError):
    """The gateway's greeting says that it does not take a recording of this length."""

    code = "too_long"


class Unreachable(StreamError):
    """Nobody answers at the URL, for now."""

    code = "unreachable"


class NotAGateway(StreamError):
    """What answers does not speak `speech-ingress.v1`."""

    code = "not_a_gateway"


class NoAnswer(StreamError):
    """The connection ended, or time ran out, before the final message. It may be stored.

    Attributes:
        clients_fault: whether the close code blames the client: the same again fails again.
    """

    code = "no_answer"

    def __init__(self, text: str, *, clients_fault: bool) -> None:
        super().__init__(text)
        self.clients_fault = clients_fault


class Refused(StreamError):
    """The request was refused before the upgrade.

    Attributes:
        status: the HTTP status.
        code: the gateway's name for it, or the status' own where a proxy refused.
        message: the same for a person; empty where a proxy refused.
        retryable: whether the same request may succeed later.
        retry_after: how many seconds the gateway asks to wait until then; 0 where it does not say.
    """

    def __init__(self, status: int, code: str, message: str, retry_after: float = 0.0) -> None:
        super().__init__(f"refused with HTTP {status} {code}: {message}".rstrip(": "))
        self.status = status
        self.code = code
        self.message = message
        self.retry_after = retry_after
        self.retryable = status == 429 or status >= 500  # noqa: PLR2004 - HTTP's own numbers
