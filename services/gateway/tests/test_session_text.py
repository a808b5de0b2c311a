"""The rules of a session whose client wants its text, and of one whose audio may be discarded."""

import hashlib

import pytest
from speech_gateway.actions import Actions, Close, Publish, Reply
from speech_gateway.errors import Ending, Failure, NoText
from speech_gateway.messages import Accepted, Connected, Failed, Limits, Recognized
from speech_gateway.session import Session, State
from speech_gateway.utterance import Receipt, Text, Wanted

ID = "7d5a1c3e-7a51-4f0a-9f0e-0c6f3d6f1b52"
LIMITS = Limits(65_536, 64_000, 200, 10.0, 60.0)
RECEIPT = Receipt("event", "speech.audio.ingress", 2, 41)
TEXT = Text("go forward", "en", 0.5, "text-event", "speech.asr.text", 1, 7)
LATER = Text("go backward", "en", 0.5, "another", "speech.asr.text", 1, 8)
PCM = b"\1\2" * 100
DONE = '{"event":"done"}'

ACCEPTED = Reply(
    Accepted.of(ID, RECEIPT, len(PCM), hashlib.sha256(PCM).hexdigest(), Ending.DONE.value.code)
)
TOLD = (Reply(Recognized(ID, TEXT)), Close(1000, "done"))


def session(**wanted: object) -> Session:
    return Session(ID, LIMITS, 0.0, wanted=Wanted(**{"results": True, **wanted}), result_timeout=30)


def storing(**wanted: object) -> Session:
    speaking = session(**wanted)
    speaking.receive_audio(PCM, 1.0)
    assert isinstance(speaking.receive_text(DONE, 2.0)[0], Publish)
    return speaking


def awaiting() -> Session:
    waiting = storing()
    assert waiting.stored(RECEIPT, 3.0) == (ACCEPTED,)
    return waiting


def why(reason: NoText) -> Actions:
    rule = reason.value
    failed = Failed(ID, rule.code, rule.message, rule.retryable, "yes")
    return (Reply(failed), Close(rule.close_code, rule.code))


def test_the_greeting_tells_the_name_and_the_time_for_the_text() -> None:
    """What the client asked for, as the gateway understood it."""
    assert session(client_ref="note-17").start() == (Reply(Connected(ID, LIMITS, "note-17", 30)),)


def test_the_text_comes_after_the_receipt_and_ends_the_session() -> None:
    """`accepted` leaves the connection open, `recognized` closes it as the utterance ended."""
    waiting = awaiting()
    assert waiting.state is State.AWAITING_TEXT
    assert waiting.answered(TEXT, 4.5) == TOLD
    assert waiting.state is State.ENDED
    assert (waiting.outcome, waiting.text.outcome, waiting.text.seconds) == (
        "accepted",
        "recognized",
        1.5,
    )


def test_a_text_before_the_receipt_waits_for_it() -> None:
    """A recogniser may be faster than the broker's answer: nothing is told before `accepted`."""
    early = storing()
    assert early.answered(TEXT, 2.5) == ()
    assert early.stored(RECEIPT, 3.0) == (ACCEPTED, *TOLD)


def test_the_first_answer_counts() -> None:
    """A text that comes twice is told once, before the receipt and after it."""
    early = storing()
    early.answered(TEXT, 2.5)
    early.answered(LATER, 2.6)
    assert early.stored(RECEIPT, 3.0) == (ACCEPTED, *TOLD)
    waiting = awaiting()
    waiting.answered(TEXT, 4.0)
    assert waiting.answered(LATER, 4.1) == ()


def test_a_dead_letter_is_not_recognized() -> None:
    """The audio is stored, and there will be no text."""
    assert awaiting().answered(NoText.NOT_RECOGNIZED, 4.0) == why(NoText.NOT_RECOGNIZED)


def test_without_a_text_in_time_the_wait_ends() -> None:
    """The time counts from `accepted`."""
    waiting = awaiting()
    assert waiting.deadline == 33.0
    assert waiting.tick(32.9) == ()
    assert waiting.tick(33.0) == why(NoText.RESULT_TIMEOUT)
    assert waiting.deadline is None


@pytest.mark.parametrize("drained", ["before the receipt", "after it"])
def test_a_drain_bounds_the_wait(drained: str) -> None:
    """A gateway that stops waits for the text until its deadline, and says nothing before."""
    waiting = storing()
    if drained == "before the receipt":
        assert waiting.drain(2.5, 8.0) == ()
    assert waiting.stored(RECEIPT, 3.0) == (ACCEPTED,)
    if drained == "after it":
        assert waiting.drain(4.0, 8.0) == ()
    assert waiting.deadline == 8.0
    assert waiting.tick(8.0) == why(NoText.RESULT_TIMEOUT)


def test_a_client_that_leaves_ends_the_wait() -> None:
    """Its utterance is accepted all the same."""
    waiting = awaiting()
    assert waiting.disconnect(4.0) == ()
    assert (waiting.state, waiting.outcome, waiting.text.outcome) == (
        State.ENDED,
        "accepted",
        "left",
    )
    assert waiting.answered(TEXT, 5.0) == ()


def test_nothing_is_awaited_for_a_client_that_left_before_its_receipt() -> None:
    """Its slot is free as soon as the broker has answered."""
    gone = storing()
    gone.disconnect(2.5)
    assert gone.stored(RECEIPT, 3.0) == ()
    assert (gone.state, gone.text.outcome) == (State.ENDED, "left")


def test_what_is_not_stored_has_no_text() -> None:
    """The error is final, whatever was heard meanwhile."""
    lost = storing()
    lost.answered(TEXT, 2.5)
    rule = Failure.BROKER_UNAVAILABLE.value
    failed = Failed(ID, rule.code, rule.message, rule.retryable, "unknown")
    assert lost.not_stored(Failure.BROKER_UNAVAILABLE, "unknown") == (
        Reply(failed),
        Close(rule.close_code, rule.code),
    )
    assert lost.text.outcome is None


def test_whoever_does_not_ask_gets_no_text() -> None:
    """`accepted` is final, as it always was."""
    plain = storing(results=False)
    assert plain.stored(RECEIPT, 3.0) == (ACCEPTED, Close(1000, "done"))
    assert plain.answered(TEXT, 4.0) == ()


def test_no_audio_is_held_while_the_text_is_awaited() -> None:
    """A session that waits keeps its slot, and no memory of what was said."""
    held = [value for value in vars(awaiting()).values() if isinstance(value, bytes | bytearray)]
    assert b"".join(map(bytes, held)) == b""


# A connection that breaks


def test_a_broken_connection_stores_nothing_where_asked() -> None:
    """Whoever says it all again must not find the first half stored."""
    broken = session(discards=True)
    broken.receive_audio(PCM, 1.0)
    assert broken.disconnect(2.0) == ()
    assert (broken.state, broken.ending, broken.outcome) == (
        State.ENDED,
        Ending.DISCARDED,
        "discarded",
    )


def test_a_silent_connection_stores_nothing_where_asked() -> None:
    """A network that swallows looks like this; a client that is still there may say it again."""
    silent = session(discards=True)
    silent.receive_audio(PCM, 1.0)
    reply, close = silent.tick(11.0)
    assert isinstance(reply, Reply)
    assert isinstance(reply.message, Failed)
    assert (reply.message.code, reply.message.stored, reply.message.retryable) == (
        "idle_timeout",
        "no",
        True,
    )
    assert close == Close(1001, "idle_timeout")
    assert (silent.ending, silent.outcome) == (Ending.SILENCED, "discarded")


@pytest.mark.parametrize("end", ["done", "expired", "drained"])
def test_every_other_ending_stores_all_the_same(end: str) -> None:
    """`on_disconnect` is about the connection alone."""
    speaking = session(discards=True)
    speaking.receive_audio(PCM, 1.0)
    speaking.drain(1.0, 5.0) if end == "drained" else None
    ends = {
        "done": lambda: speaking.receive_text(DONE, 2.0),
        "expired": lambda: speaking.receive_audio(PCM, 55.0) or speaking.tick(60.0),
        "drained": lambda: speaking.tick(5.0),
    }
    assert isinstance(ends[end]()[0], Publish)


def test_a_connection_that_breaks_behind_done_changes_nothing() -> None:
    """The first ending wins: the utterance was complete."""
    complete = storing(discards=True)
    complete.disconnect(2.5)
    assert complete.ending is Ending.DONE
