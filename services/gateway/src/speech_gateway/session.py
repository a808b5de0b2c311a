"""Every rule about one client's stream, as a sans-I/O state machine.

Messages and `now` go in. Actions, in the order to perform them, and a `deadline` come out. The
driver (`driver.py`) calls it and performs the actions. It knows neither sockets, nor asyncio, nor a
clock: `now` is any clock in seconds that does not run backwards.

    LISTENING --ending that keeps audio--> STORING --stored / not_stored--> ENDED
    LISTENING --any other ending----------------------------------------> ENDED
    STORING --stored, and the client wants the text--> AWAITING_TEXT --answered / too late--> ENDED

The first ending wins. After it the session ignores what the client sends, and only the broker's
answer counts, then the text's. A client that leaves while the text is awaited ends the wait.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from enum import Enum, auto
from typing import Literal

from speech_gateway import wav
from speech_gateway.actions import Actions, Close, Publish, Reply
from speech_gateway.errors import DISCARDING, Ending, Failure, InvalidMessage, NoText, Rule, Stored
from speech_gateway.messages import (
    Accepted,
    Connected,
    Draining,
    Failed,
    Limits,
    Recognized,
    ServerMessage,
    check_client_message,
)
from speech_gateway.rates import TokenBucket
from speech_gateway.text_wait import TextWait
from speech_gateway.utterance import Answer, Receipt, Utterance, Wanted

SpendAudio = Callable[[int, float], float]
"""Takes bytes of audio and the time; returns the seconds until their address may send more."""

DISCARDED = "discarded"
"""The outcome of audio that the client wanted thrown away if its connection broke."""


_NOTHING_MORE = Wanted()


class State(Enum):
    """Where a session stands."""

    LISTENING = auto()
    STORING = auto()
    AWAITING_TEXT = auto()
    ENDED = auto()


class Session:
    """One utterance of one client, from the handshake to its final message."""

    state = State.LISTENING
    ending: Ending | None = None
    failure: Failure | None = None
    receipt: Receipt | None = None
    audio_bytes = messages = 0
    _sha256 = ""
    _peer_gone = False
    _drain_at: float | None = None

    def __init__(
        self,
        correlation_id: str,
        limits: Limits,
        now: float,
        *,
        fill_at_limit: bool = False,
        wanted: Wanted = _NOTHING_MORE,
        result_timeout: float = 30.0,
        spend_audio: SpendAudio = lambda _bytes, _now: 0.0,
    ) -> None:
        """Begin to listen.

        Args:
            correlation_id: The server's id of this utterance.
            limits: What this session may do.
            now: The time of the handshake.
            fill_at_limit: Publish what fits of too long an utterance, instead of rejecting it.
            wanted: What the handshake asked for.
            result_timeout: Seconds from `accepted` until the text must be there, if it is wanted.
            spend_audio: Takes the audio from the budget of the client's address; none by default.
        """
        self.correlation_id = correlation_id
        self.limits = limits
        self.read_at = now
        """When the driver may read the next message of a client that is still there."""
        self.audio_paid_at = now
        """The same of a client that has gone: or many short connections would pass the rate."""
        self.text = TextWait(result_timeout if wanted.results else None)
        self._wanted = wanted
        self._spend_audio = spend_audio
        self._fill_at_limit = fill_at_limit
        self._buffer = bytearray()
        self._bucket = TokenBucket(*2 * (limits.max_messages_per_second,), now)
        self._handshake_at = self._first_audio_at = now

    @property
    def deadline(self) -> float | None:
        """When to call `tick`, on the session's clock; None while no clock runs."""
        if self.state is State.LISTENING:
            return min(self._clocks())
        return self.text.deadline(self._drain_at) if self.awaits_text else None

    @property
    def outcome(self) -> str:
        """What became of the utterance: `accepted`, or the code of what prevented it."""
        if self.receipt:
            return "accepted"
        if self.failure:
            return self.failure.value.code
        if self.ending in DISCARDING.values():
            return DISCARDED
        return self.ending.value.code if self.ending else "unfinished"

    def start(self) -> Actions:
        """Return the greeting."""
        name, timeout = self._wanted.client_ref, self.text.timeout
        return (Reply(Connected(self.correlation_id, self.limits, name, timeout)),)

    def receive_audio(self, data: bytes, now: float) -> Actions:
        """Take a binary message. The caller must not read the next one before `read_at`."""
        if not data:
            return ()  # the connection bounds empty messages, and they prolong nothing
        self.audio_paid_at = now + self._spend_audio(len(data), now)
        self.read_at = max(now + self._bucket.spend(now), self.audio_paid_at)
        if self.state is not State.LISTENING:
            return ()
        if not self.messages:
            self._first_audio_at = now
        self.messages += 1
        had, has = len(self._buffer), len(self._buffer) + len(data)
        room = self.limits.max_audio_bytes - had
        self._buffer += data[:room]
        if had < wav.CONTAINER_HEAD_BYTES <= has and self._holds_container():
            return self._end(Ending.UNSUPPORTED_AUDIO, now)
        if len(data) > room:
            ending = Ending.AUDIO_FILLED if self._fill_at_limit else Ending.AUDIO_TOO_LONG
            limit = self.limits.max_audio_bytes
            cause = InvalidMessage(ending.value.message, limit=limit, observed=has)
            return self._end(ending, now, cause)
        return ()

    def receive_text(self, text: str, now: float) -> Actions:
        """Take a text message: `done`, or an error. `read_at` holds here too."""
        self.read_at = now + self._bucket.spend(now)
        if self.state is not State.LISTENING:
            return ()
        try:
            check_client_message(text)
        except InvalidMessage as error:
            return self._end(Ending.INVALID_MESSAGE, now, error)
        return self._end(Ending.DONE, now)

    def disconnect(self, now: float) -> Actions:
        """End because the client has gone; from now on no message can reach it."""
        self._peer_gone = True
        if self.awaits_text:
            self.text.leave()
            self.state = State.ENDED
        return self._end(Ending.DISCONNECT, now)

    def fail(self, ending: Ending, now: float) -> Actions:
        """End for a reason that the driver found: a broken connection, a flood, a defect."""
        if ending.value.closed_by_library:
            self._peer_gone = True
        return self._end(ending, now)

    def drain(self, now: float, deadline: float) -> Actions:
        """Tell a client that still speaks to end by `deadline`; a later call moves it nearer.

        A text that is awaited must be there by then too.
        """
        first = self._drain_at is None
        self._drain_at = deadline if self._drain_at is None else min(deadline, self._drain_at)
        if self.state is not State.LISTENING:
            return ()
        left = max(0, round((self._drain_at - now) * 1000))
        return (Reply(Draining(self.correlation_id, left)),) if first else ()

    def tick(self, now: float) -> Actions:
        """End by the clock that ran out first, if one has."""
        if self.awaits_text:
            late = self.text.deadline(self._drain_at) <= now
            return self.answered(NoText.RESULT_TIMEOUT, now) if late else ()
        if self.state is not State.LISTENING:
            return ()
        clocks = self._clocks()
        at = min(clocks)
        return self._end(clocks[at], now) if at <= now else ()

    def stored(self, receipt: Receipt, now: float) -> Actions:
        """Take the broker's report that the utterance is stored."""
        ending = self._finish_storing()
        self.receipt = receipt
        how = ending.value
        accepted = Accepted.of(
            self.correlation_id, receipt, self.audio_bytes, self._sha256, how.code
        )
        if self.text.timeout is None:
            return self._say(accepted, Close(how.close_code, how.code))
        return self._await_text(accepted, now)

    def answered(self, answer: Answer, now: float) -> Actions:
        """Take what became of the utterance, also before `stored`; the first answer counts."""
        if self.state is State.STORING:
            self.text.keep(answer)
        if self.ending is None or not self.awaits_text:
            return ()
        self.state = State.ENDED
        self.text.end(answer, now)
        if isinstance(answer, NoText):
            return self._say_why(answer.value, "yes")
        how = self.ending.value
        return self._say(Recognized(self.correlation_id, answer), Close(how.close_code, how.code))

    def not_stored(self, failure: Failure, stored: Stored) -> Actions:
        """Take the report that the utterance is not stored, or not known to be."""
        self._finish_storing()
        self.failure = failure
        return self._say_why(failure.value, stored)

    @property
    def awaits_text(self) -> bool:
        """Whether the utterance is stored, and only its text is missing."""
        return self.state is State.AWAITING_TEXT

    def _await_text(self, accepted: Accepted, now: float) -> Actions:
        early = self.text.begin(now)
        if self._peer_gone:
            self.text.leave()
            return ()
        self.state = State.AWAITING_TEXT
        return (Reply(accepted), *(self.answered(early, now) if early else ()))

    def _clocks(self) -> dict[float, Ending]:
        # From the weakest to the strongest: of two that run out together the last one wins.
        clocks = {
            # While the gateway does not read a client to slow it, the client is not idle.
            self.read_at + self.limits.idle_timeout_seconds: Ending.IDLE_TIMEOUT,
            self._handshake_at + self.limits.max_session_seconds: Ending.SESSION_EXPIRED,
        }
        if self._drain_at is not None:
            clocks[self._drain_at] = Ending.SHUTTING_DOWN
        return clocks

    def _end(self, ending: Ending, now: float, cause: InvalidMessage | None = None) -> Actions:
        if self.state is not State.LISTENING:
            return ()
        self.ending = ending = self._judge(ending)
        whole = len(self._buffer) - len(self._buffer) % wav.SAMPLE_BYTES
        if ending.value.keeps_audio and whole:
            return self._publish(whole, ending, now)
        self.state = State.ENDED
        self._buffer.clear()
        return self._say_why(ending.value, "no", cause)

    def _judge(self, ending: Ending) -> Ending:
        """Return `ending`, or the error in its place where the audio is not fit to keep."""
        if self._wanted.discards and self._buffer and ending in DISCARDING:
            return DISCARDING[ending]
        if not ending.value.keeps_audio:
            return ending
        if len(self._buffer) < wav.CONTAINER_HEAD_BYTES and self._holds_container():
            return Ending.UNSUPPORTED_AUDIO
        if ending is Ending.DONE and not self._buffer:
            return Ending.EMPTY_AUDIO
        if ending is Ending.DONE and len(self._buffer) % wav.SAMPLE_BYTES:
            return Ending.UNSUPPORTED_AUDIO
        return ending

    def _publish(self, whole: int, ending: Ending, now: float) -> Actions:
        self.state = State.STORING
        del self._buffer[whole:]
        self.audio_bytes = whole
        self._sha256 = hashlib.sha256(self._buffer).hexdigest()
        utterance = Utterance(
            wav=wav.wrap(self._buffer),
            ended_by=ending.value.code,
            handshake_at=self._handshake_at,
            first_audio_at=self._first_audio_at,
            ended_at=now,
        )
        self._buffer = bytearray()
        return (Publish(utterance),)

    def _finish_storing(self) -> Ending:
        assert self.state is State.STORING, f"nothing is being stored: {self.state}"  # noqa: S101
        assert self.ending is not None  # noqa: S101 - for the type checker
        self.state = State.ENDED
        return self.ending

    def _say_why(
        self, rule: Rule, stored: Stored | Literal["yes"], cause: InvalidMessage | None = None
    ) -> Actions:
        failed = Failed.of(self.correlation_id, rule, stored, cause)
        return self._say(failed, Close(rule.close_code, rule.code, rule.aborts))

    def _say(self, message: ServerMessage, close: Close) -> Actions:
        return () if self._peer_gone else (Reply(message), close)

    def _holds_container(self) -> bool:
        return wav.is_container(self._buffer[: wav.CONTAINER_HEAD_BYTES])
