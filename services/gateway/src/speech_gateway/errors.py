"""Every way an utterance can end, in one table, and the error base of the package.

Pure data. The session decides by it, the messages are written from it, and the documents repeat it
(`docs/protocol.md`, "How an utterance ends").
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Literal

Stored = Literal["no", "unknown"]
"""What is known of audio that the broker has not confirmed."""


class GatewayError(Exception):
    """Base of the package's own errors."""


class InvalidMessage(GatewayError):
    """A message that the protocol does not permit; the error's text is for the client.

    Attributes:
        limit: The size that the message passed, in bytes, where the size is what is wrong.
        observed: The size of the message, in bytes.
    """

    def __init__(
        self, message: str, *, limit: int | None = None, observed: int | None = None
    ) -> None:
        super().__init__(message)
        self.limit = limit
        self.observed = observed


@dataclass(frozen=True, slots=True)
class Rule:
    """What follows from one way to end.

    Attributes:
        code: Name on the wire: `ended_by`, the error's `code`, and the reason of the close frame.
        close_code: RFC 6455 section 7.4.
        keeps_audio: Whether the gateway publishes the audio received so far.
        retryable: Whether the same audio may succeed when it is sent again.
        message: One sentence for a person.
        closed_by_library: `websockets` closes the connection itself, with its own reason, so no
            final message follows.
        aborts: The gateway closes without waiting for the client's close frame.
    """

    code: str
    close_code: int
    keeps_audio: bool
    retryable: bool
    message: str
    closed_by_library: bool = False
    aborts: bool = False


class Ending(Enum):
    """How the receiving of an utterance ended. The first ending wins."""

    DONE = Rule("done", 1000, True, False, "the client ended the utterance")
    DISCONNECT = Rule("disconnect", 1000, True, False, "the connection closed or broke")
    IDLE_TIMEOUT = Rule("idle_timeout", 1001, True, True, "no audio arrived in time")
    SESSION_EXPIRED = Rule("session_expired", 1008, True, True, "the session lasted too long")
    SHUTTING_DOWN = Rule("shutting_down", 1001, True, True, "the gateway is stopping")
    DISCARDED = Rule("disconnect", 1000, False, False, "the connection closed or broke")
    SILENCED = Rule("idle_timeout", 1001, False, True, "no audio arrived in time")
    AUDIO_TOO_LONG = Rule(
        "audio_too_long", 1009, False, False, "the utterance is longer than the gateway takes"
    )
    AUDIO_FILLED = Rule(
        "audio_too_long", 1009, True, False, "the utterance was cut at the gateway's limit"
    )
    CHUNK_TOO_LARGE = Rule(
        "chunk_too_large", 1009, False, False, "a message was too large", closed_by_library=True
    )
    PROTOCOL_ERROR = Rule(
        "protocol_error", 1002, False, False, "RFC 6455 was not kept", closed_by_library=True
    )
    RATE_LIMITED = Rule(
        "rate_limited",
        1008,
        False,
        False,
        "too many control frames, empty messages or tiny fragments",
        aborts=True,
    )
    INVALID_MESSAGE = Rule("invalid_message", 1003, False, False, "the text message is not known")
    UNSUPPORTED_AUDIO = Rule(
        "unsupported_audio",
        1003,
        False,
        False,
        "expected headerless PCM16 little-endian, 16 kHz, mono, in whole samples",
    )
    EMPTY_AUDIO = Rule("empty_audio", 1008, False, False, "the utterance holds no audio")
    INTERNAL_ERROR = Rule("internal_error", 1011, False, False, "internal error")


DISCARDING = {
    Ending.DISCONNECT: Ending.DISCARDED,
    Ending.IDLE_TIMEOUT: Ending.SILENCED,
}
"""How it ends instead where the client has asked for `on_disconnect=discard`.

Of a network that swallows everything the gateway sees nothing but silence.
"""


class Failure(Enum):
    """Why the audio of an utterance is not known to be stored."""

    BROKER_UNAVAILABLE = Rule(
        "broker_unavailable", 1013, False, True, "the audio could not be stored in time"
    )
    REJECTED_BY_BROKER = Rule(
        "rejected_by_broker", 1011, False, False, "the broker refuses this audio for good"
    )
    INTERNAL_ERROR = Rule("internal_error", 1011, False, False, "internal error")


class NoText(Enum):
    """Why a client that wants the text of its stored utterance gets none."""

    NOT_RECOGNIZED = Rule(
        "not_recognized", 1011, False, False, "the audio is stored; no text can be made of it"
    )
    RESULT_TIMEOUT = Rule(
        "result_timeout",
        1013,
        False,
        False,
        "the audio is stored; its text did not come in time",
    )


class NotStored(GatewayError):
    """A store did not store an utterance, or does not know whether it did."""

    def __init__(self, failure: Failure, stored: Stored, reason: str = "") -> None:
        """Say what failed.

        Args:
            failure: What the client is told.
            stored: What is known of the audio.
            reason: A short code for the operator's log, never for the client.
        """
        super().__init__(failure.value.code)
        self.failure = failure
        self.stored: Stored = stored
        self.reason = reason
