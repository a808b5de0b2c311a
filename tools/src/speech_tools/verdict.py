"""What the caller of a command that speaks to a gateway should do next, as an exit code.

Used by `speech stream` and `speech check`.
"""

from enum import IntEnum

from speech_tools.protocol.errors import (
    NoAnswer,
    Refused,
    StreamError,
    TooLong,
    Unreachable,
    WrongUrl,
)


class Exit(IntEnum):
    """What the caller should do next."""

    ACCEPTED = 0
    UNEXPECTED = 1
    USAGE = 2
    RETRY = 3
    REFUSED = 4
    MISMATCH = 5
    CUT_SHORT = 6
    NO_TEXT = 7


def judge_error(error: StreamError) -> Exit:
    """Return the exit code for a stream without a final message."""
    match error:
        case WrongUrl() | TooLong():
            return Exit.USAGE
        case Unreachable():
            return Exit.RETRY
        case Refused():
            return Exit.RETRY if error.retryable else Exit.REFUSED
        case NoAnswer():
            return Exit.REFUSED if error.clients_fault else Exit.RETRY
        case _:
            return Exit.UNEXPECTED
