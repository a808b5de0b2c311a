"""What a session asks of its driver: `session.py` returns these, `driver.py` does them. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from speech_gateway.messages import ServerMessage
from speech_gateway.utterance import Utterance


@dataclass(frozen=True, slots=True)
class Reply:
    """Send this message to the client."""

    message: ServerMessage


@dataclass(frozen=True, slots=True)
class Publish:
    """Store this utterance, then call `Session.stored` or `Session.not_stored`."""

    utterance: Utterance


@dataclass(frozen=True, slots=True)
class Close:
    """Close the connection; with `abort`, without waiting for the client's close frame."""

    code: int
    reason: str
    abort: bool = False


Action = Reply | Publish | Close
Actions = tuple[Action, ...]
