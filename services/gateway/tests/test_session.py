"""The table of `docs/protocol.md`, "How an utterance ends", row by row, and its exceptions.

A scenario is a list of steps, each at a made-up time in seconds since the handshake. Nothing here
sleeps, and what a step gives is compared whole.
"""

import hashlib
import struct
from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
from speech_gateway.actions import Actions, Close, Publish, Reply
from speech_gateway.errors import Ending, Failure, GatewayError, NoText, NotStored
from speech_gateway.messages import Accepted, Connected, Draining, Failed, Limits
from speech_gateway.session import Session, State
from speech_gateway.utterance import Receipt, Utterance

CORRELATION_ID = "7d5a1c3e-7a51-4f0a-9f0e-0c6f3d6f1b52"
START = 1000.0  # the session's clock at the handshake
MAX_AUDIO = 200
LIMITS = Limits(
    max_chunk_bytes=65_536,
    max_audio_bytes=MAX_AUDIO,
    max_messages_per_second=4,
    idle_timeout_seconds=10,
    max_session_seconds=60,
)
SAMPLES = bytes(range(40))
RECEIPT = Receipt("0b0f6d2c-5a5e-4bb1-8f0c-5d1f7a1b9e11", "speech.audio.ingress", 2, 41)
DONE = '{"event": "done"}'

Step = Callable[[Session], Actions]


def audio(data: bytes, at: float = 1) -> Step:
    return lambda session: session.receive_audio(data, START + at)


def text(message: str, at: float = 2) -> Step:
    return lambda session: session.receive_text(message, START + at)


def done(at: float = 2) -> Step:
    return text(DONE, at)


def gone(at: float = 2) -> Step:
    return lambda session: session.disconnect(START + at)


def fail(ending: Ending, at: float = 2) -> Step:
    return lambda session: session.fail(ending, START + at)


def tick(at: float) -> Step:
    return lambda session: session.tick(START + at)


def drain(at: float, until: float) -> Step:
    return lambda session: session.drain(START + at, START + until)


def stored() -> Step:
    return lambda session: session.stored(RECEIPT, START)


def new_session(*, fill_at_limit: bool = False, limits: Limits = LIMITS) -> Session:
    return Session(CORRELATION_ID, limits, START, fill_at_limit=fill_at_limit)


def play(session: Session, *steps: Step) -> Actions:
    """Return everything that the steps gave, in order."""
    return tuple(action for step in steps for action in step(session))


def publish(pcm: bytes, ended_by: str, *, ended: float, first_audio: float = 1) -> Actions:
    """Return what is owed where `pcm` is to be stored; the header is written out on purpose."""
    head = b"RIFF" + struct.pack("<I", 36 + len(pcm)) + b"WAVE"
    fmt = b"fmt " + struct.pack("<IHHIIHH", 16, 1, 1, 16_000, 32_000, 2, 16)
    data = b"data" + struct.pack("<I", len(pcm)) + pcm
    return (
        Publish(
            Utterance(
                wav=head + fmt + data,
                ended_by=ended_by,
                handshake_at=START,
                first_audio_at=START + first_audio,
                ended_at=START + ended,
            )
        ),
    )


def accepted(pcm: bytes, ended_by: str, close_code: int) -> Actions:
    message = Accepted(
        correlation_id=CORRELATION_ID,
        event_id=RECEIPT.event_id,
        topic=RECEIPT.topic,
        partition=RECEIPT.partition,
        offset=RECEIPT.offset,
        audio_bytes=len(pcm),
        duration_ms=round(len(pcm) / 32),
        sha256=hashlib.sha256(pcm).hexdigest(),
        ended_by=ended_by,
    )
    return (Reply(message), Close(close_code, ended_by))


def error(
    code: str,
    close_code: int,
    message: str,
    *,
    retryable: bool = False,
    limit: int | None = None,
    observed: int | None = None,
    abort: bool = False,
) -> Actions:
    failed = Failed(CORRELATION_ID, code, message, retryable, "no", limit, observed)
    return (Reply(failed), Close(close_code, code, abort))


# The table itself

RULES = {
    # ending: (code, close code, whether the audio is kept, whether it may be sent again)
    Ending.DONE: ("done", 1000, True, False),
    Ending.DISCONNECT: ("disconnect", 1000, True, False),
    Ending.DISCARDED: ("disconnect", 1000, False, False),
    Ending.SILENCED: ("idle_timeout", 1001, False, True),
    Ending.IDLE_TIMEOUT: ("idle_timeout", 1001, True, True),
    Ending.SESSION_EXPIRED: ("session_expired", 1008, True, True),
    Ending.SHUTTING_DOWN: ("shutting_down", 1001, True, True),
    Ending.AUDIO_TOO_LONG: ("audio_too_long", 1009, False, False),
    Ending.AUDIO_FILLED: ("audio_too_long", 1009, True, False),
    Ending.CHUNK_TOO_LARGE: ("chunk_too_large", 1009, False, False),
    Ending.PROTOCOL_ERROR: ("protocol_error", 1002, False, False),
    Ending.RATE_LIMITED: ("rate_limited", 1008, False, False),
    Ending.INVALID_MESSAGE: ("invalid_message", 1003, False, False),
    Ending.UNSUPPORTED_AUDIO: ("unsupported_audio", 1003, False, False),
    Ending.EMPTY_AUDIO: ("empty_audio", 1008, False, False),
    Ending.INTERNAL_ERROR: ("internal_error", 1011, False, False),
    Failure.BROKER_UNAVAILABLE: ("broker_unavailable", 1013, False, True),
    Failure.REJECTED_BY_BROKER: ("rejected_by_broker", 1011, False, False),
    Failure.INTERNAL_ERROR: ("internal_error", 1011, False, False),
    NoText.NOT_RECOGNIZED: ("not_recognized", 1011, False, False),
    NoText.RESULT_TIMEOUT: ("result_timeout", 1013, False, False),
}


def test_the_table_of_endings_is_the_protocols() -> None:
    """Every way to end, with what follows from it; no other is known."""
    rules = {item: item.value for item in (*Ending, *Failure, *NoText)}
    assert {
        item: (rule.code, rule.close_code, rule.keeps_audio, rule.retryable)
        for item, rule in rules.items()
    } == RULES


# Endings that keep the audio


@dataclass(frozen=True)
class Kept:
    """A row whose audio is published: the steps, the last of which ends it, and what is said."""

    steps: tuple[Step, ...]
    pcm: bytes
    ended: float
    close_code: int
    fill_at_limit: bool = False
    first_audio: float = 1


LONG = bytes(range(MAX_AUDIO)) + b"\x01\x02"

KEPT = {
    "done": Kept((audio(SAMPLES), done(at=3)), SAMPLES, 3, 1000),
    "idle_timeout": Kept((audio(SAMPLES), tick(11)), SAMPLES, 11, 1001),
    "session_expired": Kept((audio(SAMPLES, at=55), tick(60)), SAMPLES, 60, 1008, first_audio=55),
    "shutting_down": Kept((audio(SAMPLES), drain(2, until=5), tick(5)), SAMPLES, 5, 1001),
    "audio_too_long": Kept((audio(LONG),), LONG[:MAX_AUDIO], 1, 1009, fill_at_limit=True),
}


@pytest.mark.parametrize("ended_by", KEPT)
def test_audio_of_a_well_behaved_client_is_published_and_accepted(ended_by: str) -> None:
    """What was sent is stored, then `accepted` and the close say how the utterance ended."""
    row = KEPT[ended_by]
    session = new_session(fill_at_limit=row.fill_at_limit)
    play(session, *row.steps[:-1])

    ended = play(session, row.steps[-1])
    assert ended == publish(row.pcm, ended_by, ended=row.ended, first_audio=row.first_audio)
    assert (session.state, session.outcome) == (State.STORING, ended_by)

    assert play(session, stored()) == accepted(row.pcm, ended_by, row.close_code)
    assert (session.state, session.outcome) == (State.ENDED, "accepted")
    assert session.audio_bytes == len(row.pcm)


def test_audio_of_a_client_that_leaves_is_published_and_nothing_is_said() -> None:
    """`disconnect`: stored like any other, but there is nobody to tell."""
    session = new_session()
    actions = play(session, audio(SAMPLES), gone(at=3))
    assert actions == publish(SAMPLES, "disconnect", ended=3)
    assert play(session, stored()) == ()
    assert (session.state, session.outcome) == (State.ENDED, "accepted")


# Endings that discard it


@dataclass(frozen=True)
class Discarded:
    """A row that stores nothing: the steps, the last of which ends it, and what is said."""

    steps: tuple[Step, ...]
    said: Actions
    ending: Ending


TOO_LONG = error(
    "audio_too_long",
    1009,
    "the utterance is longer than the gateway takes",
    limit=MAX_AUDIO,
    observed=MAX_AUDIO + 2,
)
UNSUPPORTED = error(
    "unsupported_audio",
    1003,
    "expected headerless PCM16 little-endian, 16 kHz, mono, in whole samples",
)
IDLE = error("idle_timeout", 1001, "no audio arrived in time", retryable=True)
EXPIRED = error("session_expired", 1008, "the session lasted too long", retryable=True)
STOPPING = error("shutting_down", 1001, "the gateway is stopping", retryable=True)
FLOODED = error(
    "rate_limited", 1008, "too many control frames, empty messages or tiny fragments", abort=True
)
RIFF_WAVE = b"RIFF\x24\x00\x00\x00WAVE"

DISCARDED = {
    "audio_too_long": Discarded((audio(LONG),), TOO_LONG, Ending.AUDIO_TOO_LONG),
    "chunk_too_large": Discarded(
        (audio(SAMPLES), fail(Ending.CHUNK_TOO_LARGE)), (), Ending.CHUNK_TOO_LARGE
    ),
    "protocol_error": Discarded(
        (audio(SAMPLES), fail(Ending.PROTOCOL_ERROR)), (), Ending.PROTOCOL_ERROR
    ),
    "rate_limited": Discarded(
        (audio(SAMPLES), fail(Ending.RATE_LIMITED)), FLOODED, Ending.RATE_LIMITED
    ),
    "invalid_message": Discarded(
        (audio(SAMPLES), text("hello")),
        error("invalid_message", 1003, "a text message must be JSON"),
        Ending.INVALID_MESSAGE,
    ),
    "invalid_message: too long": Discarded(
        (audio(SAMPLES), text('"' + "ä" * 2048 + '"')),
        error(
            "invalid_message",
            1003,
            "a text message holds at most 4096 bytes",
            limit=4096,
            observed=4098,
        ),
        Ending.INVALID_MESSAGE,
    ),
    "unsupported_audio: a container": Discarded(
        (audio(RIFF_WAVE),), UNSUPPORTED, Ending.UNSUPPORTED_AUDIO
    ),
    "unsupported_audio: done on half a sample": Discarded(
        (audio(SAMPLES + b"\x01"), done()), UNSUPPORTED, Ending.UNSUPPORTED_AUDIO
    ),
    "empty_audio": Discarded(
        (done(),), error("empty_audio", 1008, "the utterance holds no audio"), Ending.EMPTY_AUDIO
    ),
    "internal_error": Discarded(
        (audio(SAMPLES), fail(Ending.INTERNAL_ERROR)),
        error("internal_error", 1011, "internal error"),
        Ending.INTERNAL_ERROR,
    ),
    "disconnect, no audio": Discarded((gone(),), (), Ending.DISCONNECT),
    "disconnect, half a sample": Discarded((audio(b"\x01"), gone()), (), Ending.DISCONNECT),
    "idle_timeout, no audio": Discarded((tick(10),), IDLE, Ending.IDLE_TIMEOUT),
    "idle_timeout, half a sample": Discarded((audio(b"\x01"), tick(11)), IDLE, Ending.IDLE_TIMEOUT),
    "session_expired, half a sample": Discarded(
        (audio(b"\x01", at=55), tick(60)), EXPIRED, Ending.SESSION_EXPIRED
    ),
    "shutting_down, no audio": Discarded(
        (drain(2, until=5), tick(5)), STOPPING, Ending.SHUTTING_DOWN
    ),
    "shutting_down, half a sample": Discarded(
        (audio(b"\x01"), drain(2, until=5), tick(5)), STOPPING, Ending.SHUTTING_DOWN
    ),
}


@pytest.mark.parametrize("name", DISCARDED)
def test_what_breaks_the_rules_or_holds_no_sample_is_never_published(name: str) -> None:
    """The row's one `error` and its close, at once, or nothing where nobody could hear it."""
    row = DISCARDED[name]
    session = new_session()
    play(session, *row.steps[:-1])
    assert session.state is State.LISTENING

    assert play(session, row.steps[-1]) == row.said
    assert session.state is State.ENDED
    assert session.ending is row.ending
    assert session.outcome == row.ending.value.code
    assert (session.audio_bytes, session.receipt) == (0, None)


# Audio that could not be stored

NOT_STORED = [
    (
        Failure.BROKER_UNAVAILABLE,
        "unknown",
        ("broker_unavailable", "the audio could not be stored in time", True, 1013),
    ),
    (
        Failure.BROKER_UNAVAILABLE,
        "no",
        ("broker_unavailable", "the audio could not be stored in time", True, 1013),
    ),
    (
        Failure.REJECTED_BY_BROKER,
        "no",
        ("rejected_by_broker", "the broker refuses this audio for good", False, 1011),
    ),
    (Failure.INTERNAL_ERROR, "no", ("internal_error", "internal error", False, 1011)),
]


@pytest.mark.parametrize(("failure", "is_stored", "expected"), NOT_STORED)
def test_a_failed_delivery_is_an_error_that_says_whether_it_is_stored(
    failure: Failure, is_stored, expected
) -> None:
    """The broker's answer decides code, close and `stored`; how it ended no longer matters."""
    code, message, retryable, close_code = expected
    session = new_session()
    play(session, audio(SAMPLES), done())
    failed = Failed(CORRELATION_ID, code, message, retryable, is_stored)
    assert session.not_stored(failure, is_stored) == (Reply(failed), Close(close_code, code))
    assert (session.state, session.outcome) == (State.ENDED, code)
    assert (session.ending, session.failure) == (Ending.DONE, failure)


def test_a_failed_delivery_is_not_told_to_a_client_that_has_gone() -> None:
    """Nothing can be said after `disconnect`, but the outcome is known."""
    session = new_session()
    play(session, audio(SAMPLES), gone())
    assert session.not_stored(Failure.BROKER_UNAVAILABLE, "unknown") == ()
    assert session.outcome == "broker_unavailable"


def test_what_stores_utterances_says_why_it_could_not() -> None:
    """The operator's reason is apart from the text, which is the code that clients know."""
    failed = NotStored(Failure.BROKER_UNAVAILABLE, "unknown", "_MSG_TIMED_OUT")
    assert isinstance(failed, GatewayError)
    assert (str(failed), failed.failure, failed.stored, failed.reason) == (
        "broker_unavailable",
        Failure.BROKER_UNAVAILABLE,
        "unknown",
        "_MSG_TIMED_OUT",
    )


# The greeting, and what a session is before it ends


def test_the_greeting_comes_first_and_tells_the_limits() -> None:
    """`connected` is owed at once."""
    session = new_session()
    assert session.start() == (Reply(Connected(CORRELATION_ID, LIMITS)),)
    assert (session.state, session.outcome) == (State.LISTENING, "unfinished")


def test_audio_is_taken_in_silence_and_joined_in_order() -> None:
    """No message but the last makes anything owed; cuts inside a sample do not matter."""
    session = new_session()
    pieces = (SAMPLES[:1], SAMPLES[1:20], b"", SAMPLES[20:39], SAMPLES[39:])
    assert play(session, *(audio(piece, at=1 + i) for i, piece in enumerate(pieces))) == ()
    assert play(session, done(at=6)) == publish(SAMPLES, "done", ended=6)
    assert session.messages == 4


@pytest.mark.parametrize(
    ("steps", "ended_by", "ended", "said"),
    [
        ((gone(at=3),), "disconnect", 3, ()),
        ((tick(11),), "idle_timeout", 11, accepted(SAMPLES, "idle_timeout", 1001)),
        (
            (drain(2, until=5), tick(5)),
            "shutting_down",
            5,
            accepted(SAMPLES, "shutting_down", 1001),
        ),
    ],
)
def test_a_trailing_half_sample_is_dropped_where_the_client_did_not_say_done(
    steps: tuple[Step, ...], ended_by: str, ended: float, said: Actions
) -> None:
    """A client that was cut off keeps its whole samples; size and digest are of those."""
    session = new_session()
    play(session, audio(SAMPLES + b"\x7f"), *steps[:-1])
    assert play(session, steps[-1]) == publish(SAMPLES, ended_by, ended=ended)
    assert play(session, stored()) == said
    assert session.audio_bytes == len(SAMPLES)


def test_exactly_the_longest_utterance_is_taken() -> None:
    """The limit itself is allowed, in one message or after others."""
    session = new_session()
    assert play(session, audio(LONG[: MAX_AUDIO - 1]), audio(LONG[MAX_AUDIO - 1 : MAX_AUDIO])) == ()
    assert play(session, done()) == publish(LONG[:MAX_AUDIO], "done", ended=2)


def test_one_byte_too_many_rejects_the_utterance() -> None:
    """`limit` and `observed` tell how it was passed: all that was sent so far."""
    session = new_session()
    play(session, audio(LONG[:MAX_AUDIO]))
    failed = play(session, audio(b"\x01"))[0]
    assert isinstance(failed, Reply)
    assert failed.message == replace(TOO_LONG[0].message, observed=MAX_AUDIO + 1)


def test_too_long_an_utterance_is_filled_exactly_across_messages() -> None:
    """With `BUFFER_LIMIT_ACTION=publish` the first `max_audio_bytes` are stored, to the byte."""
    session = new_session(fill_at_limit=True)
    actions = play(session, audio(LONG[:150]), audio(LONG[150:] + b"\x03", at=2))
    assert actions == publish(LONG[:MAX_AUDIO], "audio_too_long", ended=2)


# Containers

HEADS = {
    "riff": RIFF_WAVE,
    "ogg": b"OggS\x00\x02\x00\x00\x00\x00\x00\x00",
    "flac": b"fLaC\x00\x00\x00\x22\x00\x00\x00\x00",
    "ebml": b"\x1a\x45\xdf\xa3\x9f\x42\x86\x81\x01\x42\xf7\x81",
    "id3": b"ID3\x04\x00\x00\x00\x00\x00\x00\x00\x00",
}


@pytest.mark.parametrize("head", HEADS.values(), ids=HEADS)
def test_a_container_is_refused_with_its_twelfth_byte(head: bytes) -> None:
    """Decided once 12 bytes are there, however they were cut, and not before."""
    session = new_session()
    assert play(session, audio(head[:1]), audio(head[1:11])) == ()
    assert play(session, audio(head[11:] + SAMPLES)) == UNSUPPORTED


@pytest.mark.parametrize(
    ("end", "said"),
    [(done(), UNSUPPORTED), (tick(11), UNSUPPORTED), (gone(), ())],
    ids=["done", "idle", "gone"],
)
def test_a_container_shorter_than_twelve_bytes_is_refused_at_the_end(
    end: Step, said: Actions
) -> None:
    """What is there is judged before anything would be published."""
    session = new_session()
    play(session, audio(b"OggS\x00\x02"))
    assert play(session, end) == said
    assert session.ending is Ending.UNSUPPORTED_AUDIO


def test_a_container_is_refused_before_its_length_is_looked_at() -> None:
    """A whole WAV file in one message that is also too long is told what is really wrong."""
    session = new_session(fill_at_limit=True)
    assert play(session, audio(RIFF_WAVE + LONG)) == UNSUPPORTED


def test_the_bytes_of_a_container_later_in_the_utterance_are_audio() -> None:
    """Only the first 12 bytes are looked at, and only once."""
    session = new_session()
    play(session, audio(SAMPLES[:12]), audio(RIFF_WAVE))
    assert play(session, done()) == publish(SAMPLES[:12] + RIFF_WAVE, "done", ended=2)


def test_a_riff_head_that_is_not_wave_is_audio() -> None:
    """Four letters alone do not make a container."""
    session = new_session()
    pcm = b"RIFF\x24\x00\x00\x00WAVX"
    assert play(session, audio(pcm), done()) == publish(pcm, "done", ended=2)


# The first ending wins


def later_inputs() -> tuple[Step, ...]:
    return (
        audio(SAMPLES, at=3),
        text("not JSON", at=3),
        done(at=3),
        fail(Ending.RATE_LIMITED, at=3),
        fail(Ending.INTERNAL_ERROR, at=3),
        drain(3, until=4),
        tick(5),
        tick(10_000),
    )


@pytest.mark.parametrize("ended_by", KEPT)
def test_nothing_counts_while_an_utterance_is_being_stored_but_the_brokers_answer(
    ended_by: str,
) -> None:
    """Whatever else comes is ignored and no clock runs; then `accepted` is as it would be."""
    row = KEPT[ended_by]
    session = new_session(fill_at_limit=row.fill_at_limit)
    play(session, *row.steps)
    before = (session.ending, session.messages, None)
    assert play(session, *later_inputs()) == ()
    assert (session.ending, session.messages, session.deadline) == before
    assert session._buffer == b""  # nor does what is ignored take memory
    assert play(session, stored()) == accepted(row.pcm, ended_by, row.close_code)


@pytest.mark.parametrize("name", DISCARDED)
def test_nothing_counts_after_the_final_message(name: str) -> None:
    """One final message and one close, whatever follows."""
    session = new_session()
    play(session, *DISCARDED[name].steps)
    assert play(session, *later_inputs(), gone(at=6)) == ()
    assert session.ending is DISCARDED[name].ending
    assert session.deadline is None


@pytest.mark.parametrize("leave", [gone(at=3), fail(Ending.PROTOCOL_ERROR, at=3)])
def test_a_client_that_leaves_while_its_done_is_being_stored_stays_done(leave: Step) -> None:
    """The record says `done`; only the answer has nobody to go to."""
    session = new_session()
    play(session, audio(SAMPLES), done())
    assert play(session, leave, stored()) == ()
    assert (session.ending, session.outcome) == (Ending.DONE, "accepted")


def test_the_broker_answers_once_for_what_is_being_stored() -> None:
    """An answer for nothing is a defect of the shell, and must not pass for a second message."""
    session = new_session()
    with pytest.raises(AssertionError, match="nothing is being stored"):
        session.stored(RECEIPT, START)
    play(session, audio(SAMPLES), done(), stored())
    with pytest.raises(AssertionError, match="nothing is being stored"):
        session.not_stored(Failure.INTERNAL_ERROR, "no")


@pytest.mark.parametrize("more", ["audio", "text"])
def test_who_goes_on_after_the_end_is_slowed_all_the_same(more: str) -> None:
    """What is ignored costs the gateway too, so it is read no faster than audio."""
    session = new_session()
    play(session, audio(SAMPLES), done())
    send = session.receive_audio if more == "audio" else session.receive_text
    message = SAMPLES if more == "audio" else "x"
    for _ in range(LIMITS.max_messages_per_second):
        send(message, 2000.0)
    assert session.read_at == 2000.0 + 1 / LIMITS.max_messages_per_second


# The clocks


def test_the_deadline_is_the_clock_that_runs_out_first() -> None:
    """Idle from the handshake, then from the last audio, then the session's, then the drain's."""
    session = new_session()
    deadlines = [session.deadline]
    for step in (audio(SAMPLES, at=4), audio(SAMPLES, at=55), drain(56, until=58)):
        play(session, step)
        deadlines.append(session.deadline)
    assert deadlines == [START + 10, START + 14, START + 60, START + 58]


@pytest.mark.parametrize(
    "step",
    [audio(b"", at=9), tick(9), drain(9, until=30)],
    ids=["empty message", "tick", "drain"],
)
def test_only_a_binary_message_with_audio_prolongs_the_idle_clock(step: Step) -> None:
    """Empty messages and whatever is no message do not."""
    session = new_session()
    play(session, step)
    assert session.deadline == START + 10
    assert session.messages == 0


def test_no_audio_prolongs_the_session() -> None:
    """60 s since the handshake, also for a client that sends without a pause."""
    session = new_session()
    assert play(session, *(audio(b"\x01\x02", at=at) for at in range(1, 60))) == ()
    assert play(session, tick(59.999)) == ()
    pcm = b"\x01\x02" * 59
    assert play(session, tick(60)) == publish(pcm, "session_expired", ended=60)


@pytest.mark.parametrize("ended_by", ["idle_timeout", "session_expired", "shutting_down"])
def test_a_clock_does_nothing_before_its_time(ended_by: str) -> None:
    """Timers may fire early by a rounding: the session looks at the time itself."""
    row = KEPT[ended_by]
    session = new_session()
    play(session, *row.steps[:-1])
    assert session.deadline == START + row.ended
    assert play(session, tick(row.ended - 0.001)) == ()
    assert session.state is State.LISTENING


def test_a_late_tick_acts_on_the_clock_that_ran_out_first() -> None:
    """Of several that have run out, the earliest says how it ended."""
    session = new_session()
    play(session, audio(SAMPLES, at=45), drain(46, until=57))
    assert play(session, tick(100)) == publish(SAMPLES, "idle_timeout", ended=100, first_audio=45)


@pytest.mark.parametrize(
    ("steps", "ended_by"),
    [
        ((audio(SAMPLES, at=50),), "session_expired"),
        ((audio(SAMPLES, at=50), drain(51, until=60)), "shutting_down"),
    ],
)
def test_of_clocks_that_run_out_together_the_strongest_says_how_it_ended(
    steps: tuple[Step, ...], ended_by: str
) -> None:
    """Idle, session and drain all at 60 s: the later in that order wins."""
    session = new_session()
    play(session, *steps)
    assert play(session, tick(60)) == publish(SAMPLES, ended_by, ended=60, first_audio=50)


# Drain


def test_a_client_that_still_speaks_is_told_the_deadline_and_may_go_on() -> None:
    """`draining` with the milliseconds that are left; `done` before it is a `done`."""
    session = new_session()
    assert play(session, drain(2, until=7.25)) == (Reply(Draining(CORRELATION_ID, 5250)),)
    assert play(session, audio(SAMPLES, at=3), done(at=4)) == publish(
        SAMPLES, "done", ended=4, first_audio=3
    )


def test_a_second_drain_moves_the_deadline_nearer_in_silence() -> None:
    """A second signal means now; the client is told once."""
    session = new_session()
    play(session, audio(SAMPLES), drain(2, until=7))
    assert play(session, drain(3, until=3)) == ()
    assert session.deadline == START + 3
    assert play(session, tick(3)) == publish(SAMPLES, "shutting_down", ended=3)


def test_a_second_drain_never_moves_the_deadline_away() -> None:
    """What the client was promised last stands."""
    session = new_session()
    play(session, drain(2, until=5), drain(3, until=9))
    assert session.deadline == START + 5


def test_a_drain_whose_deadline_is_past_leaves_no_time() -> None:
    """`deadline_ms` is never negative."""
    session = new_session()
    assert play(session, drain(5, until=2)) == (Reply(Draining(CORRELATION_ID, 0)),)


# The rate


def test_a_burst_is_read_unslowed_and_the_next_message_one_refill_later() -> None:
    """Four at once with four a second; then each a quarter of a second after the last."""
    session = new_session()
    slowed = []
    for at in (1, 1, 1, 1, 1.25, 1.5):
        play(session, audio(b"\x01\x02", at=at))
        slowed.append(session.read_at - (START + at))
    assert slowed == [0, 0, 0, 0.25, 0.25, 0.25]
    assert session.state is State.LISTENING


def test_a_rest_fills_the_bucket_again_and_never_more_than_full() -> None:
    """However long a client was silent, its burst is the same."""
    session = new_session(limits=replace(LIMITS, max_audio_bytes=400))
    play(session, *(audio(b"\x01\x02", at=1) for _ in range(4)))
    slowed = []
    for _ in range(4):
        play(session, audio(b"\x01\x02", at=9))
        slowed.append(session.read_at - (START + 9))
    assert slowed == [0, 0, 0, 0.25]


def test_empty_messages_do_not_cost_audio_its_rate() -> None:
    """They are on the connection's budget."""
    session = new_session()
    play(session, *(audio(b"", at=1) for _ in range(100)))
    assert session.read_at == START


def test_a_slowed_client_is_not_idle_while_it_is_not_read() -> None:
    """It is never cut for the gateway's own pause: the idle clock starts when reading may."""
    limits = replace(LIMITS, max_messages_per_second=1, idle_timeout_seconds=0.5)
    session = new_session(limits=limits)
    play(session, audio(SAMPLES, at=0.25))
    assert session.read_at == START + 1.25
    assert session.deadline == START + 1.75


# What the client's address may send


def paced(*waits: float) -> tuple[Session, list[tuple[int, float]]]:
    """Return a session whose address is told these waits, and what it has spent."""
    spent: list[tuple[int, float]] = []

    def spend(audio_bytes: int, now: float) -> float:
        spent.append((audio_bytes, now))
        return waits[len(spent) - 1]

    return Session(CORRELATION_ID, LIMITS, START, spend_audio=spend), spent


def test_audio_is_taken_from_what_the_address_may_send() -> None:
    """Each message is read when the one before it is paid for; texts and nothing cost nothing."""
    session, spent = paced(0.0, 0.5, 0.0)
    assert (session.read_at, session.audio_paid_at) == (START, START)
    paid = []
    for pcm, at in ((SAMPLES, 1), (SAMPLES[:2], 2), (b"", 3), (SAMPLES, 4)):
        play(session, audio(pcm, at=at))
        paid.append((session.read_at - START, session.audio_paid_at - START))
    assert paid == [(1, 1), (2.5, 2.5), (2.5, 2.5), (4, 4)]
    play(session, text('{"event":"done"}', at=5))
    assert spent == [
        (len(SAMPLES), START + 1),
        (2, START + 2),
        (len(SAMPLES), START + 4),
    ]


def test_of_two_pauses_the_longer_one_counts() -> None:
    """The rate of messages holds beside it, and only audio is paid for by one who has gone."""
    session, _ = paced(*[0.0] * LIMITS.max_messages_per_second)
    each = 1 / LIMITS.max_messages_per_second
    for _message in range(LIMITS.max_messages_per_second):
        play(session, audio(b"\0", at=1))
    assert session.read_at == pytest.approx(START + 1 + each)
    assert session.audio_paid_at == START + 1


def test_who_waits_for_the_address_is_not_idle() -> None:
    """The idle clock starts when reading may."""
    session, _ = paced(30.0)
    play(session, audio(SAMPLES, at=1))
    assert session.deadline == START + 31 + LIMITS.idle_timeout_seconds
