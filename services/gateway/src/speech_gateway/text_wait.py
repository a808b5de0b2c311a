"""The wait of one session for its text, from the end of its utterance on. Pure.

Each session of `session.py` keeps one, also where its client did not ask for `results=text`: then
nothing is awaited. It knows no messages, because the session writes these.
"""

from __future__ import annotations

from speech_gateway.errors import NoText
from speech_gateway.utterance import Answer

RECOGNIZED = "recognized"
LEFT = "left"
"""The client went before its text came."""


class TextWait:
    """When the text must be there, and what came of it.

    A recogniser may be faster than the broker's answer to the gateway, so that a text can come
    before the utterance is known to be stored. It is kept until `begin`.

    Attributes:
        timeout: Seconds from `accepted` until the text must be there; None where none is wanted.
        outcome: `recognized`, `left`, or the code of a `NoText`; None until it is known.
        seconds: From `accepted` until then.
        began_at: When the utterance was known to be stored, on the session's clock.
    """

    def __init__(self, timeout: float | None) -> None:
        self.timeout = timeout
        self.outcome: str | None = None
        self.seconds: float | None = None
        self.began_at: float | None = None
        self._early: Answer | None = None

    def keep(self, answer: Answer) -> None:
        """Keep an answer that came before `begin`; the first one counts."""
        self._early = self._early or answer

    def begin(self, now: float) -> Answer | None:
        """Begin to wait, now that the utterance is stored; return what has already come."""
        self.began_at = now
        return self._early

    def deadline(self, drain_at: float | None) -> float:
        """Return when the wait ends, on the session's clock: by its timeout, or by the drain."""
        by_timeout = (self.began_at or 0.0) + (self.timeout or 0.0)
        return by_timeout if drain_at is None else min(by_timeout, drain_at)

    def end(self, answer: Answer, now: float) -> None:
        """Note what came."""
        self.outcome = answer.value.code if isinstance(answer, NoText) else RECOGNIZED
        self.seconds = now - (self.began_at or now)

    def leave(self) -> None:
        """Note that the client has gone."""
        self.outcome = LEFT
