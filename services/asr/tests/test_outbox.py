"""A record is stored, however often the broker has to be asked."""

import asyncio
from functools import partial

import pytest
from speech_asr.errors import Reason, Unprocessable
from speech_asr.outbox import Outbox
from speech_lib.errors import DeliveryError
from speech_lib.kafka.records import Record
from speech_lib.testing.fakes import FakeBroker, FakeProducer

RECORD = Record("t", b"key", b"value", {"name": "text"})
LATER = DeliveryError(stored="unknown", reason="_MSG_TIMED_OUT")
NO_RIGHT = DeliveryError(stored="no", refused="topic", reason="TOPIC_AUTHORIZATION_FAILED")
INVALID = DeliveryError(stored="no", refused="record", reason="INVALID_RECORD")
TOO_LARGE = DeliveryError(stored="no", refused="record", reason="MSG_SIZE_TOO_LARGE")


def dead_letters(outbox):
    """Return what stores a record as a dead letter."""
    return partial(outbox.store_dead_letter, empty=lambda why: Record("t", b"", why.encode()))


def attempt(store, *errors):
    """Return what is in the log after `store`, and each condition that was reported."""
    broker, reports = FakeBroker(), []

    async def scenario():
        producer = FakeProducer(broker)
        producer.errors.extend(errors)
        outbox = Outbox(producer, lambda *report: reports.append(report))
        await store(outbox)(RECORD)

    try:
        asyncio.run(scenario())
    except Unprocessable as refused:
        return [], [*reports, refused.reason]
    return [each.value for each in broker.records("t")], reports


@pytest.mark.parametrize(
    ("store", "condition"),
    [(lambda box: box.store_text, "texts"), (dead_letters, "dead_letters")],
    ids=["text", "dead letter"],
)
def test_a_record_is_tried_until_the_broker_has_it(store, condition):
    """While it waits the service is not ready, with the broker's reason."""
    assert attempt(store, LATER) == (
        [b"value"],
        [(condition, False, "_MSG_TIMED_OUT"), (condition, True, "")],
    )


@pytest.mark.parametrize(
    ("store", "condition"),
    [(lambda box: box.store_text, "texts"), (dead_letters, "dead_letters")],
    ids=["text", "dead letter"],
)
def test_a_topic_that_may_not_be_written_is_waited_for(store, condition):
    """The record is as good as before: somebody has to permit it."""
    assert attempt(store, NO_RIGHT, NO_RIGHT) == (
        [b"value"],
        [(condition, False, "TOPIC_AUTHORIZATION_FAILED")] * 2 + [(condition, True, "")],
    )


def test_a_text_that_is_refused_itself_is_given_up():
    """Another attempt would change nothing, and the partition has to move on."""
    assert attempt(lambda box: box.store_text, LATER, TOO_LARGE) == (
        [],
        [("texts", False, "_MSG_TIMED_OUT"), ("texts", True, ""), Reason.RESULT_REFUSED],
    )


def test_a_dead_letter_is_never_given_up():
    """It has no other place, so it is tried without its content, and then for ever."""
    assert attempt(dead_letters, INVALID, INVALID) == (
        [b"refused"],
        [("dead_letters", False, "INVALID_RECORD"), ("dead_letters", True, "")],
    )


def test_a_dead_letter_that_is_too_large_is_stored_without_its_content():
    """It would be too large for ever; without content it, too, is tried until the broker has it."""
    assert attempt(dead_letters, LATER, TOO_LARGE, LATER) == (
        [b"too_large"],
        [
            ("dead_letters", False, "_MSG_TIMED_OUT"),
            ("dead_letters", False, "_MSG_TIMED_OUT"),
            ("dead_letters", True, ""),
        ],
    )
