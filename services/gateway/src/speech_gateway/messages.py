"""The JSON text messages of `speech-ingress.v1`, both ways. Used by the session; pure.

Each server message is a frozen dataclass that knows its own JSON. The client's one message is
parsed as JSON, never compared as a string.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal, NoReturn, Self

from speech_gateway import wav
from speech_gateway.errors import InvalidMessage, Rule, Stored
from speech_gateway.utterance import Receipt, Text

SUBPROTOCOL = "speech-ingress.v1"
MAX_TEXT_BYTES = 4096
RECOMMENDED_CHUNK_BYTES = 3_200
"""100 ms of audio. Live speech in pieces of 20 ms costs a gateway three times as much."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one session may do; the greeting tells the client.

    Sizes are of PCM in bytes, durations in seconds.
    """

    max_chunk_bytes: int
    max_audio_bytes: int
    max_messages_per_second: int
    idle_timeout_seconds: float
    max_session_seconds: float


@dataclass(frozen=True, slots=True)
class Connected:
    """The greeting: the first message, at once.

    Attributes:
        correlation_id: The server's id of the utterance.
        limits: What this session may do.
        client_ref: The client's own name for what it says, where it gave one.
        result_timeout: The seconds within which the text follows `accepted`, where it asked for it.
    """

    correlation_id: str
    limits: Limits
    client_ref: str | None = None
    result_timeout: float | None = None
    status: str = field(default="connected", init=False)

    def to_json(self) -> str:
        """Return the message as sent."""
        name = {"client_ref": self.client_ref} if self.client_ref else {}
        head = _dump({"status": self.status, "correlation_id": self.correlation_id, **name})
        return f"{head[:-1]},{_greeting_of(self.limits, self.result_timeout)}"


@dataclass(frozen=True, slots=True)
class Draining:
    """The gateway is stopping: the client has `deadline_ms` from now to end its utterance."""

    correlation_id: str
    deadline_ms: int
    status: str = field(default="draining", init=False)

    def to_json(self) -> str:
        """Return the message as sent."""
        return _dump(
            {
                "status": self.status,
                "correlation_id": self.correlation_id,
                "deadline_ms": self.deadline_ms,
            }
        )


@dataclass(frozen=True, slots=True)
class Accepted:
    """The receipt: the broker stored the record at this partition and offset.

    `audio_bytes`, `duration_ms` and `sha256` (hex) are of the PCM, without the WAV header.
    """

    correlation_id: str
    event_id: str
    topic: str
    partition: int
    offset: int
    audio_bytes: int
    duration_ms: int
    sha256: str
    ended_by: str
    status: str = field(default="accepted", init=False)

    @classmethod
    def of(
        cls, correlation_id: str, receipt: Receipt, audio_bytes: int, sha256: str, ended_by: str
    ) -> Self:
        """Build it for whole samples that are stored where the receipt says."""
        return cls(
            correlation_id,
            receipt.event_id,
            receipt.topic,
            receipt.partition,
            receipt.offset,
            audio_bytes,
            wav.duration_ms(audio_bytes),
            sha256,
            ended_by,
        )

    def to_json(self) -> str:
        """Return the message as sent."""
        return _dump(
            {
                "status": self.status,
                "correlation_id": self.correlation_id,
                "event_id": self.event_id,
                "topic": self.topic,
                "partition": self.partition,
                "offset": self.offset,
                "audio_bytes": self.audio_bytes,
                "duration_ms": self.duration_ms,
                "sha256": self.sha256,
                "ended_by": self.ended_by,
            }
        )


@dataclass(frozen=True, slots=True)
class Recognized:
    """The text, after `accepted`, for a client that asked for it."""

    correlation_id: str
    text: Text
    status: str = field(default="recognized", init=False)

    def to_json(self) -> str:
        """Return the message as sent."""
        text = self.text
        return _dump(
            {
                "status": self.status,
                "correlation_id": self.correlation_id,
                "text": text.text,
                "language": text.language,
                "confidence": round(text.confidence, 4),  # it was a 32-bit float
                "event_id": text.event_id,
                "topic": text.topic,
                "partition": text.partition,
                "offset": text.offset,
            }
        )


@dataclass(frozen=True, slots=True)
class Failed:
    """The utterance is not stored, or its text does not come; `limit` where one was passed."""

    correlation_id: str
    code: str
    message: str
    retryable: bool
    stored: Stored | Literal["yes"]
    limit: int | None = None
    observed: int | None = None
    status: str = field(default="error", init=False)

    @classmethod
    def of(
        cls,
        correlation_id: str,
        rule: Rule,
        stored: Stored | Literal["yes"],
        cause: InvalidMessage | None = None,
    ) -> Self:
        """Build it from the rule that ended the utterance; `cause` says more than the rule."""
        return cls(
            correlation_id,
            rule.code,
            str(cause or rule.message),
            rule.retryable,
            stored,
            cause.limit if cause else None,
            cause.observed if cause else None,
        )

    def to_json(self) -> str:
        """Return the message as sent, without `limit` and `observed` where there are none."""
        passed = {"limit": self.limit, "observed": self.observed}
        return _dump(
            {
                "status": self.status,
                "correlation_id": self.correlation_id,
                "code": self.code,
                "message": self.message,
                "retryable": self.retryable,
                "stored": self.stored,
                **{name: size for name, size in passed.items() if size is not None},
            }
        )


ServerMessage = Connected | Draining | Accepted | Recognized | Failed


def check_client_message(text: str) -> None:
    """Return if `text` is `{"event": "done"}`, the only message a client can send.

    Unknown keys are ignored.

    Raises:
        InvalidMessage: It is anything else; the error says what was expected.
    """
    size = len(text.encode())
    if size > MAX_TEXT_BYTES:
        raise InvalidMessage(
            f"a text message holds at most {MAX_TEXT_BYTES} bytes",
            limit=MAX_TEXT_BYTES,
            observed=size,
        )
    try:
        message = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):  # too many digits are a ValueError, too deep is the other
        raise InvalidMessage("a text message must be JSON") from None
    if not isinstance(message, dict):
        raise InvalidMessage("a text message must be a JSON object")
    if message.get("event") != "done":
        raise InvalidMessage('the only event that a client sends is {"event": "done"}')


def _refuse_constant(_name: str) -> NoReturn:
    raise ValueError  # NaN and Infinity are Python's, not JSON's


@lru_cache(maxsize=16)
def _greeting_of(limits: Limits, result_timeout: float | None) -> str:
    """Return the greeting's part that is the same for many sessions, up to its end."""
    rest: dict[str, Any] = {
        "protocol": SUBPROTOCOL,
        "audio": {
            "encoding": "pcm_s16le",
            "sample_rate_hz": wav.SAMPLE_RATE_HZ,
            "channels": wav.CHANNELS,
            "recommended_chunk_bytes": RECOMMENDED_CHUNK_BYTES,
        },
        "limits": {
            "max_chunk_bytes": limits.max_chunk_bytes,
            "max_audio_bytes": limits.max_audio_bytes,
            "max_messages_per_second": limits.max_messages_per_second,
            "idle_timeout_seconds": limits.idle_timeout_seconds,
            "max_session_seconds": limits.max_session_seconds,
        },
    }
    if result_timeout is not None:
        rest["results"] = {"timeout_seconds": result_timeout}
    return _dump(rest)[1:]


def _dump(fields: dict[str, Any]) -> str:
    return json.dumps(fields, separators=(",", ":"))
