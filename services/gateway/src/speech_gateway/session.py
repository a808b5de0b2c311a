"""Every rule about one client's stream, as a sans-I/O state machine.

Messages and `now` go in. Actions, in the order to perform them, and a `deadline` come out. The
driver (`driver.py`) calls it and performs the actions. It knows neither sockets, nor asyncio, nor a
clock: `now` is any clock in seconds that does not run backwards.

    LISTENING --ending that keeps audio--> STORING --stored / not_stored--> ENDED
    LISTENING --any other ending----------------------------------------> ENDED

The first ending wins. After it the session ignores what the client sends, and no clock runs. Only
the broker's answer counts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto

from speech_gateway import wav
from speech_gateway.errors import Ending, Failure, InvalidMessage, Stored
from speech_gateway.messages import (
    Accepted,
    Connected,
    Draining,
    Failed,
    Limits,
    ServerMessage,
    check_client_message,
)
from speech_gateway.rates import TokenBucket
from speech_gateway.utterance import Receipt, Utterance


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


SpendAudio = Callable[[int, float], float]
"""Takes bytes of audio and the time; returns the seconds until their address may send more."""

Action = Reply | Publish | Close
Actions = tuple[Action, ...]


class State(Enum):
    """Where a session stands."""

    LISTENING = auto()
    STORING = auto()
    ENDED = auto()


class Session:
    """One utterance of one client, from the handshake to its final message."""

    def __init__(
        self,
        correlation_id: str,
        limits: Limits,
        now: float,
        *,
        fill_at_limit: bool = False,
        spend_audio: SpendAudio = lambda _bytes, _now: 0.0,
    ) -> None:
        """Begin to listen.

        Args:
            correlation_id: The server's id of this utterance.
            limits: What this session may do.
            now: The time of the handshake.
            fill_at_limit: Publish what fits of too long an utterance, instead of rejecting it.
            spend_audio: Takes the audio from the budget of the client's address; none by default.
        """
        self.correlation_id = correlation_id
        self.limits = limits
        self.state = State.LISTENING
        self.ending: Ending | None = None
        self.failure: Failure | None = None
        self.receipt: Receipt | None = None
        self.audio_bytes = 0
        self.messages = 0
        self.read_at = now
        """When the driver may read the next message of a client that is still there."""
        self.audio_paid_at = now
        """When it may read the next message of a client that has gone: the audio rate holds there
        too, or many short connections would pass it."""
        self._spend_audio = spend_audio
        self._fill_at_limit = fill_at_limit
        self._buffer = bytearray()
        self._sha256 = ""
        rate = limits.max_messages_per_second
        self._bucket = TokenBucket(rate, rate, now)
        self._peer_gone = False
        self._handshake_at = self._first_audio_at = now
        self._drain_at: float | None = None

    @property
    def deadline(self) -> float | None:
        """When to call `tick`, on the session's clock; None once the utterance has ended."""
        return min(self._clocks()) if self.state is State.LISTENING else None

    @property
    def outcome(self) -> str:
        """What became of the utterance: `accepted`, or the code of what prevented it."""
        if self.receipt:
            return "accepted"
        if self.failure:
            return self.failure.value.code
        return self.ending.value.code if self.ending else "unfinished"

    def start(self) -> Actions:
        """Return the greeting."""
        return (Reply(Connected(self.correlation_id, self.limits)),)

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
            return self._end(ending, now, limit=self.limits.max_audio_bytes, observed=has)
        return ()

    def receive_text(self, text: str, now: float) -> Actions:
        """Take a text message: `done`, or an error. `read_at` holds here too."""
        self.read_at = now + self._bucket.spend(now)
        if self.state is not State.LISTENING:
            return ()
        try:
            check_client_message(text)
        except InvalidMessage as error:
            return self._end(
                Ending.INVALID_MESSAGE,
                now,
                message=str(error),
                limit=error.limit,
                observed=error.observed,
            )
        return self._end(Ending.DONE, now)

    def disconnect(self, now: float) -> Actions:
        """End because the client has gone; from now on no message can reach it."""
        self._peer_gone = True
        return self._end(Ending.DISCONNECT, now)

    def fail(self, ending: Ending, now: float) -> Actions:
        """End for a reason that the driver found: a broken connection, a flood, a defect."""
        if ending.value.closed_by_library:
            self._peer_gone = True
        return self._end(ending, now)

    def drain(self, now: float, deadline: float) -> Actions:
        """Tell a client that still speaks to end by `deadline`; a later call moves it nearer."""
        if self.state is not State.LISTENING:
            return ()
        first = self._drain_at is None
        self._drain_at = deadline if self._drain_at is None else min(deadline, self._drain_at)
        left = max(0, round((self._drain_at - now) * 1000))
        return (Reply(Draining(self.correlation_id, left)),) if first else ()

    def tick(self, now: float) -> Actions:
        """End by the clock that ran out first, if one has."""
        if self.state is not State.LISTENING:
            return ()
        clocks = self._clocks()
        at = min(clocks)
        return self._end(clocks[at], now) if at <= now else ()

    def stored(self, receipt: Receipt) -> Actions:
        """Take the broker's report that the utterance is stored."""
        ending = self._finish_storing()
        self.receipt = receipt
        accepted = Accepted(
            correlation_id=self.correlation_id,
            event_id=receipt.event_id,
            topic=receipt.topic,
            partition=receipt.partition,
            offset=receipt.offset,
            audio_bytes=self.audio_bytes,
            duration_ms=wav.duration_ms(self.audio_bytes),
            sha256=self._sha256,
            ended_by=ending.value.code,
        )
        return self._say(accepted, Close(ending.value.close_code, ending.value.code))

    def not_stored(self, failure: Failure, stored: Stored) -> Actions:
        """Take the report that the utterance is not stored, or not known to be."""
        self._finish_storing()
        self.failure = failure
        rule = failure.value
        failed = Failed(self.correlation_id, rule.code, rule.message, rule.retryable, stored)
        return self._say(failed, Close(rule.close_code, rule.code))

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

    def _end(
        self,
        ending: Ending,
        now: float,
        *,
        message: str | None = None,
        limit: int | None = None,
        observed: int | None = None,
    ) -> Actions:
        if self.state is not State.LISTENING:
            return ()
        self.ending = ending = self._judge(ending)
        whole = len(self._buffer) - len(self._buffer) % wav.SAMPLE_BYTES
        if ending.value.keeps_audio and whole:
            return self._publish(whole, ending, now)
        self.state = State.ENDED
        self._buffer.clear()
        rule = ending.value
        failed = Failed(
            self.correlation_id,
            rule.code,
            message or rule.message,
            rule.retryable,
            "no",
            limit,
            observed,
        )
        return self._say(failed, Close(rule.close_code, rule.code, rule.aborts))

    def _judge(self, ending: Ending) -> Ending:
        """Return `ending`, or the error in its place where the audio is not fit to keep."""
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

    def _say(self, message: ServerMessage, close: Close) -> Actions:
        return () if self._peer_gone else (Reply(message), close)

    def _holds_container(self) -> bool:
        return wav.is_container(self._buffer[: wav.CONTAINER_HEAD_BYTES])
