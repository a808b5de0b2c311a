"""What a gateway may say (docs/protocol.md), and how to tell that a server is no gateway.

Pure. Any server may answer, so `client` checks every message here before it uses one.
"""

import json
import math
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Final, NoReturn

SUBPROTOCOL: Final = "speech-ingress.v1"
MAX_TEXT: Final = 1_000
"""Characters of a name or a sentence. Ours have some 60."""
MAX_SECONDS: Final = 86_400
MAX_DEPTH: Final = 8
"""Of objects in objects. Ours have two."""

Frame = dict[str, Any]
Rule = Callable[[object], bool]


@dataclass(frozen=True, slots=True)
class Limits:
    """Those limits of the greeting that a sender has to keep. Bytes are of PCM."""

    max_chunk_bytes: int
    max_audio_bytes: int
    max_messages_per_second: int
    idle_timeout_seconds: float
    max_session_seconds: float
    result_seconds: float = 0.0
    """Within which the text follows the receipt, where it was asked for."""


class AnswerError(Exception):
    """What answers is not a gateway. The text goes on after "what answers"."""


def _is_text(value: object) -> bool:
    return isinstance(value, str) and len(value) <= MAX_TEXT


def _up_to(most: int) -> Rule:
    """Return what tells a whole number from 1 to `most`."""
    return lambda value: type(value) is int and 1 <= value <= most


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value < 2**63


def _is_seconds(value: object) -> bool:
    return type(value) in {int, float} and 0 < value <= MAX_SECONDS  # type: ignore[operator]


def _is_id(value: object) -> bool:
    try:
        return isinstance(value, str) and str(uuid.UUID(value)) == value
    except ValueError:
        return False


def _is_digest(value: object) -> bool:
    return isinstance(value, str) and len(value) == 64 and set(value) <= set("0123456789abcdef")  # noqa: PLR2004 - SHA-256


LIMITS: Final[Mapping[str, Rule]] = {
    "max_chunk_bytes": _up_to(2**30),
    "max_audio_bytes": _up_to(2**30),
    "max_messages_per_second": _up_to(1_000_000),
    "idle_timeout_seconds": _is_seconds,
    "max_session_seconds": _is_seconds,
}
"""What a greeting names. The bounds are far beyond what a gateway can be set to."""

_ANSWERS: Final[Mapping[str, Mapping[str, Rule]]] = {
    "accepted": {
        "event_id": _is_text,
        "topic": _is_text,
        "partition": _is_count,
        "offset": _is_count,
        "audio_bytes": _is_count,
        "duration_ms": _is_count,
        "sha256": _is_digest,
        "ended_by": _is_text,
    },
    "recognized": {
        "text": lambda value: isinstance(value, str),
        "language": _is_text,
        "confidence": lambda value: type(value) in {int, float} and 0 <= value <= 1,  # type: ignore[operator]
        "event_id": _is_text,
        "topic": _is_text,
        "partition": _is_count,
        "offset": _is_count,
    },
    "error": {
        "code": _is_text,
        "message": _is_text,
        "retryable": lambda value: isinstance(value, bool),
        "stored": lambda value: value in {"no", "unknown", "yes"} if _is_text(value) else False,
    },
}


def read(message: str | bytes) -> Frame:
    """Return the object in a message.

    Raises:
        AnswerError: There is none, or it holds what no JSON of a gateway holds.
    """
    if isinstance(message, bytes):
        raise AnswerError("sends binary messages")
    try:
        frame = json.loads(message, parse_constant=_refuse, parse_float=_finite)
    except (ValueError, RecursionError):
        raise AnswerError("sends text that is not JSON") from None
    if not isinstance(frame, dict):
        raise AnswerError("sends JSON that is not an object")
    if _is_too_deep(frame):
        raise AnswerError("sends JSON that is nested too deep")
    return frame


def _refuse(constant: str) -> NoReturn:
    raise ValueError(constant)  # NaN and Infinity, which are not JSON


def _finite(digits: str) -> float:
    if not math.isfinite(value := float(digits)):
        raise ValueError(digits)
    return value


def _is_too_deep(frame: Frame) -> bool:
    level: list[Any] = [frame]
    for _ in range(MAX_DEPTH):
        inside = (each.values() if isinstance(each, dict) else each for each in level)
        level = [value for each in inside for value in each if isinstance(value, dict | list)]
    return bool(level)


def greeting(frame: Frame) -> Limits:
    """Return the limits that a first message names.

    Raises:
        AnswerError: It is no greeting.
    """
    if (frame.get("status"), frame.get("protocol")) != ("connected", SUBPROTOCOL):
        raise AnswerError(f"does not greet as {SUBPROTOCOL}")
    if not _is_id(frame.get("correlation_id")):
        raise AnswerError("greets without a correlation id")
    limits = frame.get("limits")
    if not isinstance(limits, dict):
        raise AnswerError("greets without limits")
    if (wrong := _wrong(limits, LIMITS)) is not None:
        raise AnswerError(f"greets with a {wrong} that nobody can keep")
    results = frame.get("results")
    seconds = results.get("timeout_seconds") if isinstance(results, dict) else None
    return Limits(
        **{limit.name: limits[limit.name] for limit in fields(Limits) if limit.name in limits},
        result_seconds=seconds if _is_seconds(seconds) else 0.0,  # type: ignore[arg-type]
    )


@dataclass
class Answers:
    """The answers to one utterance, in the order in which a gateway may give them.

    Attributes:
        correlation_id: The name of the utterance.
        results: Whether its text was asked for.
        receipt: The first answer, `accepted` or `error`.
        result: What follows an `accepted` where the text was asked for: `recognized` or `error`.
    """

    correlation_id: str
    results: bool
    receipt: Frame | None = None
    result: Frame | None = None

    @property
    def complete(self) -> bool:
        """Whether nothing more comes."""
        if self.receipt is None:
            return False
        return not self.results or self.receipt["status"] == "error" or self.result is not None

    def take(self, frame: Frame) -> None:
        """Take a message; one that is no answer is left alone.

        Raises:
            AnswerError: It lacks what the protocol says, is about another utterance, or comes out
                of turn.
        """
        status = frame.get("status")
        if not isinstance(status, str) or (rules := _ANSWERS.get(status)) is None:
            return
        if (wrong := _wrong(frame, rules)) is not None:
            raise AnswerError(f"says {status} without a valid {wrong}")
        if frame.get("correlation_id") != self.correlation_id:
            raise AnswerError("answers for another correlation id")
        self._put(frame, status)

    def _put(self, frame: Frame, status: str) -> None:
        of_text = status == "recognized" or (status == "error" and frame["stored"] == "yes")
        if of_text != (self.receipt is not None) or self.complete:
            raise AnswerError(f"says {status} out of turn")
        if self.receipt is None:
            self.receipt = frame
        else:
            self.result = frame


def drain_seconds(frame: Frame) -> float:
    """Return how long a gateway that is stopping still takes audio, or 0 where it does not say."""
    milliseconds = frame.get("deadline_ms")
    return milliseconds / 1_000 if _is_count(milliseconds) else 0.0  # type: ignore[operator]


def _wrong(values: Mapping[str, object], rules: Mapping[str, Rule]) -> str | None:
    """Return the first field that breaks its rule."""
    return next((name for name, rule in rules.items() if not rule(values.get(name))), None)


def refusal(body: bytes) -> tuple[str, str] | None:
    """Return code and message of a refused request, or nothing where a proxy has answered."""
    try:
        told = read(body.decode())
    except (AnswerError, UnicodeDecodeError):
        return None
    code, message = told.get("code"), told.get("message")
    if not isinstance(code, str) or not isinstance(message, str):
        return None
    return (code, message) if _is_text(code) and _is_text(message) else None


def retry_after(value: str | None) -> float:
    """Return the seconds that a refusal asks to wait; 0 where it does not say, or says a date."""
    seconds = float(value) if value and value.isascii() and value.isdecimal() else 0.0
    return min(seconds, MAX_SECONDS)
