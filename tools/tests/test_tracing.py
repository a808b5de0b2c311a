"""What is made of the records of one utterance: its hops, and the one that is missing. Pure."""

import uuid
from dataclasses import replace

import pytest
from speech_lib.events import TextRecognized, TextRecognizedEvent
from speech_lib.kafka import headers
from speech_lib.kafka.records import ReceivedRecord
from speech_tools.trace import tracing
from speech_tools.trace.tracing import HOPS, Missing, Recogniser
from support.trace_record import AUDIO, ID, START_MS, TOPICS


def test_the_hops_have_their_names_and_their_order():
    """Programs read them: `speech trace --json` prints these names."""
    assert (
        *("handshake", "first audio", "end of audio", "stored"),
        *("fetched", "recognised", "text stored"),
    ) == HOPS


def test_the_text_alone_is_enough():
    """Where the audio's record is gone by retention, the text is still a result."""
    topics = TOPICS
    event = TextRecognizedEvent.new(
        correlation_id=str(uuid.uuid4()),
        source_service="asr",
        payload=TextRecognized("hello", "en-US", 0.5),
    )
    record = ReceivedRecord("text", 0, 7, b"", b"value", {headers.FETCHED_MS: "5"}, 9)
    found = tracing.trace(event.correlation_id, [record], topics, lambda _: event)
    assert found.missing is None
    assert [(each.name, each.at_ms, each.wait_ms) for each in found.hops] == [
        ("handshake", None, None),
        ("first audio", None, None),
        ("end of audio", None, None),
        ("stored", None, None),
        ("fetched", 5, None),
        ("recognised", None, None),
        ("text stored", 9, 4),
    ]


def test_what_a_record_does_not_tell_is_not_known():
    """A header that is no time leaves the hop without one; the next waits for the one before."""
    told = AUDIO.headers | {headers.FIRST_AUDIO_MS: "soon"}
    found = tracing.trace(ID, [replace(AUDIO, headers=told)], TOPICS, lambda _: pytest.fail("none"))
    assert [(each.name, each.at_ms, each.wait_ms) for each in found.hops[1:3]] == [
        ("first audio", None, None),
        ("end of audio", START_MS + 2_000, 2_000),
    ]


@pytest.mark.parametrize(
    ("members", "next_offset", "expected"),
    [
        (0, 40, Missing("fetched", "stored but not fetched: no ASR service is running in group "
                        "asr; 2 utterances are before it on its partition", 2, 0)),
        (2, 41, Missing("fetched", "stored but not fetched: 1 utterance is before it on its "
                        "partition; ASR services running: 2", 1, 2)),
        (1, 42, Missing("recognised", "not recognised yet: it is the next of its partition; the "
                        "ASR service is at it", 0, 1)),
        (None, 42, Missing("fetched", "stored but not fetched: no utterance is before it on its "
                           "partition; is the ASR service running?", 0, None)),
        (1, 43, Missing("text stored", "no text: group asr is past it, yet it has neither text nor "
                        "dead letter; was the group's offset set by hand, or the text deleted?",
                        None, 1)),
    ],
    ids=["stopped", "busy", "at it", "not told", "passed over"],
)  # fmt: skip
def test_what_is_missing_is_told_by_how_far_the_recogniser_is(members, next_offset, expected):
    """Waiting, being recognised and lost are three things."""
    group = Recogniser("asr", {3: next_offset}, members)
    found = tracing.trace(ID, [AUDIO], TOPICS, lambda _: pytest.fail("nothing to decode"), group)
    assert found.missing == expected


def test_what_may_not_be_asked_is_not_claimed():
    """Without the group's progress it is only said that it is not fetched."""
    line = "stored but not fetched: is the ASR service running?"
    for group in (None, Recogniser("asr", {}, 1)):
        found = tracing.trace(ID, [AUDIO], TOPICS, lambda _: pytest.fail("nothing"), group)
        assert found.missing == Missing("fetched", line)
