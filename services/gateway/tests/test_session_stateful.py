"""Random sequences of everything that can happen to a session, against a model of its rules.

The model says the table of `docs/protocol.md`, "How an utterance ends", once more and in its own
words: what it expects of each step is compared whole. What holds of every session, whatever the
model says, stands beside it as invariants. Time is made up: nothing here sleeps.
"""

import hashlib
import re
from collections import Counter
from dataclasses import dataclass, replace
from typing import ClassVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from speech_gateway import wav
from speech_gateway.actions import Actions, Close, Publish, Reply
from speech_gateway.errors import Ending, Failure
from speech_gateway.messages import Accepted, Draining, Failed, Limits
from speech_gateway.session import Session
from speech_gateway.utterance import Receipt, Utterance

STEPS = 25
ID = "7d5a1c3e-7a51-4f0a-9f0e-0c6f3d6f1b52"
RECEIPT = Receipt("0b0f6d2c-5a5e-4bb1-8f0c-5d1f7a1b9e11", "speech.audio.ingress", 2, 41)
MAX_AUDIO, RATE, IDLE, LONGEST = 96, 4, 3.0, 6.0
LIMITS = Limits(
    max_chunk_bytes=65_536,
    max_audio_bytes=MAX_AUDIO,
    max_messages_per_second=RATE,
    idle_timeout_seconds=IDLE,
    max_session_seconds=LONGEST,
)
MAX_TEXT = 4096
CONTAINER = re.compile(rb"RIFF.{4}WAVE|OggS|fLaC|\x1aE\xdf\xa3|ID3[\x02-\x04][^\xff]", re.DOTALL)


@dataclass(frozen=True)
class Row:
    """One row of the table: is the audio kept, the close code, is it worth another try."""

    keeps: bool
    close: int
    retryable: bool = False


TABLE = {
    "done": Row(keeps=True, close=1000),
    "disconnect": Row(keeps=True, close=1000),
    "idle_timeout": Row(keeps=True, close=1001, retryable=True),
    "session_expired": Row(keeps=True, close=1008, retryable=True),
    "shutting_down": Row(keeps=True, close=1001, retryable=True),
    "audio_too_long": Row(keeps=False, close=1009),
    "chunk_too_large": Row(keeps=False, close=1009),
    "protocol_error": Row(keeps=False, close=1002),
    "rate_limited": Row(keeps=False, close=1008),
    "invalid_message": Row(keeps=False, close=1003),
    "unsupported_audio": Row(keeps=False, close=1003),
    "empty_audio": Row(keeps=False, close=1008),
    "internal_error": Row(keeps=False, close=1011),
}
FAILURES = {
    Failure.BROKER_UNAVAILABLE: Row(keeps=False, close=1013, retryable=True),
    Failure.REJECTED_BY_BROKER: Row(keeps=False, close=1011),
    Failure.INTERNAL_ERROR: Row(keeps=False, close=1011),
}


class Model:
    """What a session should do, as the table says it; each method returns the actions expected."""

    def __init__(self, *, fill: bool) -> None:
        self.fill = fill
        self.ended_by: str | None = None
        self.storing = self.gone = False
        self.pcm = b""
        self.now = self.read_at = self.first_audio_at = 0.0
        self.drain_at: float | None = None
        self._heard: list[int] = []
        self._tokens, self._filled_at = float(RATE), 0.0

    def audio(self, data: bytes) -> Actions:
        if not data:
            return ()
        self._spend()
        if self.ended_by:
            return ()
        if not self._heard:
            self.first_audio_at = self.now
        self._heard.append(len(data))
        had, self.pcm = len(self.pcm), self.pcm + data
        if had < wav.CONTAINER_HEAD_BYTES <= len(self.pcm) and CONTAINER.match(self.pcm):
            return self.end("unsupported_audio")
        if (size := len(self.pcm)) > MAX_AUDIO:
            self.pcm = self.pcm[:MAX_AUDIO]
            return self.end("audio_too_long", limit=MAX_AUDIO, observed=size)
        return ()

    def text(self, text: str, *, valid: bool) -> Actions:
        self._spend()
        if valid:
            return self.end("done")
        size = len(text.encode())
        too_long = (MAX_TEXT, size) if size > MAX_TEXT else (None, None)
        return self.end("invalid_message", *too_long)

    def drain(self, until: float) -> Actions:
        if self.ended_by:
            return ()
        first = self.drain_at is None
        self.drain_at = until if self.drain_at is None else min(self.drain_at, until)
        left = max(0, round((self.drain_at - self.now) * 1000))
        return (Reply(Draining(ID, left)),) if first else ()

    def tick(self) -> Actions:
        at, code = self.next_clock
        return self.end(code) if at <= self.now else ()

    def end(self, code: str, limit: int | None = None, observed: int | None = None) -> Actions:
        if self.ended_by:
            return ()
        keeps = TABLE[code].keeps or (code == "audio_too_long" and self.fill)
        self.ended_by = self._judge(code) if keeps else code
        samples = self.pcm[: len(self.pcm) // 2 * 2]
        if keeps and self.ended_by == code and samples:
            self.pcm, self.storing = samples, True
            return (
                Publish(Utterance(wav.wrap(samples), code, 0.0, self.first_audio_at, self.now)),
            )
        return self._say_why(self.ended_by, TABLE[self.ended_by], "no", limit, observed)

    def stored(self) -> Actions:
        self.storing = False
        digest = hashlib.sha256(self.pcm).hexdigest()
        size, code = len(self.pcm), self.ended_by
        told = Accepted(
            ID, RECEIPT.event_id, RECEIPT.topic, 2, 41, size, round(size / 32), digest, code
        )
        return () if self.gone else (Reply(told), Close(TABLE[code].close, code))

    def not_stored(self, failure: Failure, stored: str) -> Actions:
        self.storing = False
        return self._say_why(failure.name.lower(), FAILURES[failure], stored)

    @property
    def next_clock(self) -> tuple[float, str]:
        """When the next clock runs out, and which; of two at once the stronger one."""
        clocks = [(self.read_at + IDLE, 2, "idle_timeout"), (LONGEST, 1, "session_expired")]
        if self.drain_at is not None:
            clocks.append((self.drain_at, 0, "shutting_down"))
        at, _, code = min(clocks)
        return at, code

    def _judge(self, code: str) -> str:
        """Return how an utterance ends whose audio is to be kept, if it can be."""
        short = len(self.pcm) < wav.CONTAINER_HEAD_BYTES
        if short and CONTAINER.match(self.pcm):
            return "unsupported_audio"
        if code == "done" and not self.pcm:
            return "empty_audio"
        return "unsupported_audio" if code == "done" and len(self.pcm) % 2 else code

    def _say_why(
        self,
        code: str,
        row: Row,
        stored: str,
        limit: int | None = None,
        observed: int | None = None,
    ) -> Actions:
        if self.gone:
            return ()
        told = Failed(ID, code, "", row.retryable, stored, limit, observed)
        return Reply(told), Close(row.close, code, abort=code == "rate_limited")

    def _spend(self) -> None:
        """Take one of `RATE` tokens that come back at that rate; without one, the next waits."""
        self._tokens = min(RATE, self._tokens + (self.now - self._filled_at) * RATE) - 1
        self._filled_at = self.now
        self.read_at = self.now + max(0.0, (1 - self._tokens) / RATE)


def without_sentences(actions: Actions) -> Actions:
    """Leave out what an error says to people."""
    return tuple(
        Reply(replace(action.message, message=""))
        if isinstance(action, Reply) and isinstance(action.message, Failed)
        else action
        for action in actions
    )


def is_final(action: object) -> bool:
    return isinstance(action, Reply) and isinstance(action.message, Accepted | Failed)


pauses = st.sampled_from([0.0, 0.0, 0.0, 0.125, 0.25, 1.0, 2.0])  # exact as floats
heads = st.sampled_from([b"OggS", b"RIFF\0\0\0\0WAVE", b"RIFF\0\0\0\0", b"ID3\x03\0", b"ID3\x09\0"])
speech = st.one_of(
    st.binary(max_size=13),
    st.binary(max_size=13),
    st.binary(min_size=MAX_AUDIO - 16, max_size=MAX_AUDIO + 8),
)
dones = st.sampled_from(
    [
        '{"event":"done"}',
        ' {"event" : "done"} ',
        '{"event":"\\u0064one"}',
        '{"x":[1],"event":"done"}',
    ]
)
wrong_texts = st.sampled_from(
    ["", "done", "{}", '{"event":"DONE"}', '"done"', "NaN", "[" * MAX_TEXT, "é" * MAX_TEXT]
) | st.text(max_size=20)
found_by_the_shell = st.sampled_from(
    [Ending.CHUNK_TOO_LARGE, Ending.PROTOCOL_ERROR, Ending.RATE_LIMITED, Ending.INTERNAL_ERROR]
)


def ends(self: "Stream") -> bool:
    """Tell whether it is time for what surely ends the utterance."""
    return self.patience <= 0


class Stream(RuleBasedStateMachine):
    """A session and its model, given the same."""

    outcomes: ClassVar[Counter[str]] = Counter()
    """How the sequences of this run ended, and what became of their audio."""

    @initialize(fill=st.booleans(), patience=st.integers(0, 12))
    def begin(self, fill: bool, patience: int) -> None:  # noqa: FBT001 - hypothesis names it
        self.patience = patience
        """Steps that come before anything that surely ends the utterance: few would last else."""
        self.session = Session(ID, LIMITS, 0.0, fill_at_limit=fill)
        self.model = Model(fill=fill)
        self.actions: list[object] = []

    def expect(self, given: Actions, expected: Actions) -> None:
        self.actions += given
        self.patience -= 1
        assert without_sentences(given) == expected

    def wait(self, pause: float, *, to_read: bool = False) -> float:
        """Let time pass; a message is never read before `read_at`."""
        self.model.now += pause
        if to_read:
            self.model.now = max(self.model.now, self.session.read_at)
        return self.model.now

    # What a client does

    @rule(pause=pauses, data=speech)
    def speak(self, pause: float, data: bytes) -> None:
        now = self.wait(pause, to_read=True)
        self.expect(self.session.receive_audio(data, now), self.model.audio(data))

    @precondition(lambda self: ends(self) and len(self.model.pcm) < wav.CONTAINER_HEAD_BYTES)
    @rule(head=heads)
    def send_a_container(self, head: bytes) -> None:
        self.speak(0.0, head)

    @precondition(ends)
    @rule(pause=pauses, text=dones)
    def say_done(self, pause: float, text: str) -> None:
        now = self.wait(pause, to_read=True)
        self.expect(self.session.receive_text(text, now), self.model.text(text, valid=True))

    @precondition(ends)
    @rule(text=wrong_texts)
    def say_something_else(self, text: str) -> None:
        now = self.wait(0.0, to_read=True)
        self.expect(self.session.receive_text(text, now), self.model.text(text, valid=False))

    @precondition(ends)
    @rule(pause=pauses)
    def leave(self, pause: float) -> None:
        now, self.model.gone = self.wait(pause), True
        self.expect(self.session.disconnect(now), self.model.end("disconnect"))

    @precondition(ends)
    @rule(ending=found_by_the_shell)
    def be_caught(self, ending: Ending) -> None:
        failed_already = ending in {Ending.CHUNK_TOO_LARGE, Ending.PROTOCOL_ERROR}
        self.model.gone |= failed_already
        self.expect(self.session.fail(ending, self.model.now), self.model.end(ending.name.lower()))

    # What the gateway does

    @rule(pause=pauses, left=st.sampled_from([-1.0, 0.0, 2.0, 20.0, 20.0, 20.0]))
    def drain(self, pause: float, left: float) -> None:
        now = self.wait(pause)
        self.expect(self.session.drain(now, now + left), self.model.drain(now + left))

    @rule(pause=pauses)
    def look_at_the_clock(self, pause: float) -> None:
        self.expect(self.session.tick(self.wait(pause)), self.model.tick())

    @precondition(lambda self: ends(self) and self.session.deadline is not None)
    @rule()
    def let_a_clock_run_out(self) -> None:
        left = self.session.deadline - self.model.now
        self.look_at_the_clock(max(0.0, left))

    @precondition(lambda self: self.model.storing)
    @rule()
    def store(self) -> None:
        self.expect(self.session.stored(RECEIPT, self.model.now), self.model.stored())
        self.outcomes["accepted"] += 1

    @precondition(lambda self: self.model.storing)
    @rule(failure=st.sampled_from(Failure), stored=st.sampled_from(["no", "unknown"]))
    def fail_to_store(self, failure: Failure, stored: str) -> None:
        given = self.session.not_stored(failure, stored)
        self.expect(given, self.model.not_stored(failure, stored))
        self.outcomes[f"not stored: {failure.name}"] += 1

    # What holds of every session

    @invariant()
    def clocks_run_while_it_listens_and_only_then(self) -> None:
        listening = self.model.ended_by is None
        assert self.session.deadline == (self.model.next_clock[0] if listening else None)
        assert self.session.read_at == self.model.read_at

    @invariant()
    def the_first_ending_wins(self) -> None:
        ending = self.session.ending
        assert (ending and ending.value.code) == self.model.ended_by

    @invariant()
    def audio_is_bounded_and_gone_after_the_end(self) -> None:
        most = MAX_AUDIO if self.model.ended_by is None else 0
        assert len(self.session._buffer) <= most

    @invariant()
    def actions_come_once_and_in_their_order(self) -> None:
        """Messages, at most one utterance to store, the final message, the close right behind."""
        kinds = ["final" if is_final(each) else type(each).__name__ for each in self.actions]
        assert re.fullmatch(
            r"(Reply )?(Publish )?(final Close )?", "".join(f"{kind} " for kind in kinds)
        )

    def teardown(self) -> None:
        """End what still goes on: then one final message was said, unless nobody could hear it."""
        if not hasattr(self, "session"):
            return  # the first step of all has failed
        self.drain(0.0, 0.0)
        self.look_at_the_clock(0.0)
        if self.model.storing:
            self.store()
        self.actions_come_once_and_in_their_order()
        finals = [each for each in self.actions if is_final(each)]
        assert len(finals) == 1 or (self.model.gone and finals == [])
        self.outcomes["sequences"] += 1
        self.outcomes[self.model.ended_by] += 1


EVERY_OUTCOME = {
    "sequences",
    "accepted",
    *TABLE,
    *(f"not stored: {failure.name}" for failure in Failure),
}


def play(sequences: int) -> Counter[str]:
    """Try so many sequences; return how they ended."""
    Stream.outcomes.clear()
    run_state_machine_as_test(
        Stream,
        settings=settings(
            max_examples=sequences,
            stateful_step_count=STEPS,
            deadline=None,  # the machine may be busy: how long one takes says nothing
            database=None,
            suppress_health_check=[HealthCheck.too_slow],
        ),
    )
    return Stream.outcomes


def test_a_few_random_sequences_do_what_the_table_says():
    """Every step gives just the actions that the model gives, and no invariant breaks."""
    assert play(20)["sequences"] >= 20


@pytest.mark.security
@pytest.mark.parametrize(
    "sequences",
    [
        pytest.param(2_000, marks=pytest.mark.timeout(120)),
        pytest.param(10_000, marks=[pytest.mark.full, pytest.mark.timeout(600)]),
    ],
)
def test_thousands_of_random_sequences_do_what_the_table_says(sequences):
    """The same, with every ending and every answer of the broker among them."""
    outcomes = play(sequences)
    assert outcomes["sequences"] >= sequences
    assert set(outcomes) == EVERY_OUTCOME
