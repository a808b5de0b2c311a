"""One utterance of what `speech stream` says: what became of it, over all its attempts. Pure."""

import random
from dataclasses import dataclass, field
from typing import Any

from speech_lib.events import BYTES_PER_SECOND

from speech_tools.protocol.errors import NoAnswer, Refused, StreamError
from speech_tools.protocol.messages import Frame
from speech_tools.verdict import Exit, judge_error

LONGEST_PAUSE_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why an attempt did not end with a receipt.

    Attributes:
        exit: the exit code, if it stays so.
        line: the same for a person.
        again: whether another attempt makes sense.
        doubtful: whether the attempt may be stored after all, or the begin of it.
        wait: how long the gateway asks to wait, in seconds.
    """

    exit: Exit
    line: str
    again: bool
    doubtful: bool = False
    wait: float = 0.0


@dataclass(slots=True)
class Part:
    """One utterance.

    Attributes:
        number: from 1 on.
        client_ref: what its records bear, the same on every attempt.
        start: its first byte, of all that is said.
        attempts: how often it was begun.
        doubled: whether an attempt before the last one may be stored, too.
        receipt: the gateway's `accepted`.
        result: `recognized`, or the `error` in its place; nothing where none came.
        trouble: why it was given up.
    """

    number: int
    client_ref: str
    start: int
    attempts: int = 0
    doubled: bool = False
    receipt: Frame | None = field(default=None, repr=False)
    result: Frame | None = field(default=None, repr=False)
    trouble: Trouble | None = None

    @property
    def end(self) -> int:
        """The byte behind the last one that is stored."""
        return self.start + (self.receipt["audio_bytes"] if self.receipt else 0)

    @property
    def text(self) -> str | None:
        """What was heard, if that is known."""
        if self.result is None or self.result["status"] != "recognized":
            return None
        return str(self.result["text"])

    def stored(self) -> dict[str, Any]:
        """Return what is told of its receipt."""
        told = {name: value for name, value in (self.receipt or {}).items() if name != "status"}
        return {**self._head(), **told, "attempts": self.attempts, "may_be_doubled": self.doubled}

    def heard(self) -> dict[str, Any]:
        """Return what is told of its text, or of why there is none."""
        result = self.result or {"code": "no_answer", "message": "the connection ended"}
        return {**self._head(), **{name: result[name] for name in result if name != "status"}}

    def failed(self) -> dict[str, Any]:
        """Return what is told where it was given up."""
        assert self.trouble is not None  # noqa: S101 - the caller has seen to it
        told = {"error": self.trouble.line, "attempts": self.attempts}
        return {**self._head(), **told, "may_be_stored": self.doubled or self.trouble.doubtful}

    def _head(self) -> dict[str, Any]:
        start_ms = self.start * 1_000 // BYTES_PER_SECOND
        return {"part": self.number, "client_ref": self.client_ref, "start_ms": start_ms}


def pause(attempt: int, wait: float) -> float:
    """Return how long to wait after an attempt, the first one being 1, in seconds.

    1, 2, 4 … 30 s, each times a random factor between a half and one and a half (docs/protocol.md),
    and never less than the gateway asks for.
    """
    return max(wait, min(LONGEST_PAUSE_SECONDS, 2.0 ** (attempt - 1)) * random.uniform(0.5, 1.5))  # noqa: S311


def trouble_of(error: StreamError, *, sent: bool) -> Trouble:
    """Judge an attempt without a final message; `sent` is whether audio went out."""
    code = judge_error(error)
    again = code is Exit.RETRY
    doubtful = again and sent and isinstance(error, NoAnswer)
    line = str(error)
    if doubtful and "may be stored" not in line:
        line += "; it may be stored"
    wait = error.retry_after if isinstance(error, Refused) else 0.0
    return Trouble(code, line, again, doubtful, wait)


def trouble_told(error: Frame) -> Trouble:
    """Judge an attempt whose final message is an `error`."""
    line = f"{error['code']}: {error['message']}"
    again = bool(error["retryable"])
    if error["stored"] == "unknown":
        return Trouble(Exit.RETRY, f"{line}; it may be stored", again, doubtful=True)
    return Trouble(Exit.RETRY if again else Exit.REFUSED, line, again)


MISMATCH = Trouble(
    Exit.MISMATCH, "the receipt is not about the audio that was sent", again=False, doubtful=True
)
