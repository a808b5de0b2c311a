"""The checker itself: every broken promise is found, and nothing else."""

import hashlib
import uuid

import pytest
from speech_gateway import wav
from speech_lib.events import AudioInput, AudioInputEvent
from speech_lib.events.codec import encode
from speech_lib.kafka import headers
from speech_lib.kafka.records import ReceivedRecord
from support.ledger import (
    Entry,
    Figures,
    Findings,
    Operation,
    Verdict,
    audit,
    figures,
)

PCM = b"one utterance..."
OTHER = b"another utterance"
TOPIC = "audio"


def accepted(name="a", pcm=PCM, *, stored=None, **changes) -> Operation:
    kept = pcm if stored is None else stored
    final = {
        "status": "accepted",
        "event_id": f"event-{name}",
        "topic": TOPIC,
        "partition": 1,
        "offset": 7,
        "audio_bytes": len(kept),
        "sha256": hashlib.sha256(kept).hexdigest(),
        "ended_by": "done",
        **changes,
    }
    return Operation(1, pcm, True, name, final, began=0, ended=1)


def refused(name="a", stored="no") -> Operation:
    return Operation(1, PCM, True, name, {"status": "error", "stored": stored}, began=0, ended=2)


def entry(name="a", pcm=PCM, place=(TOPIC, 1, 7), ended_by="done") -> Entry:
    return Entry(name, f"event-{name}", place, ended_by, pcm)


unanswered = Operation(1, PCM, True, "a", None, began=0, ended=3)
nobody_there = Operation(1, PCM, False, None, None, began=0, ended=0.5)


@pytest.mark.parametrize(
    ("operation", "verdict"),
    [
        (accepted(), Verdict.ACCEPTED),
        (refused(stored="no"), Verdict.FAILED),
        (refused(stored="unknown"), Verdict.UNKNOWN),
        (unanswered, Verdict.UNANSWERED),
        (Operation(1, PCM, True, None, None, 0, 1), Verdict.UNANSWERED),
        (nobody_there, Verdict.FAILED),
    ],
)
def test_verdict_is_what_the_client_knows(operation, verdict):
    """A connection that was opened is owed an answer; one that was refused has it."""
    assert operation.verdict is verdict


@pytest.mark.parametrize(
    ("operations", "entries"),
    [
        ([accepted()], [entry()]),
        ([accepted(), accepted("b", OTHER, offset=8)], [entry(), entry("b", OTHER, (TOPIC, 1, 8))]),
        ([nobody_there, refused("b"), accepted()], [entry()]),
        ([refused(stored="unknown")], [entry()]),
        ([refused(stored="unknown")], []),
        (
            [accepted(stored=PCM[:4], ended_by="shutting_down")],
            [entry(pcm=PCM[:4], ended_by="shutting_down")],
        ),
    ],
    ids=["one", "two", "tried again", "unknown stored", "unknown not stored", "cut at the end"],
)
def test_kept_promises_are_no_findings(operations, entries):
    """Whoever was told the truth has nothing to complain of."""
    assert audit(operations, entries) == Findings()


@pytest.mark.parametrize(
    ("operations", "entries", "findings"),
    [
        ([accepted()], [], Findings(lost=("a",))),
        ([accepted()], [entry(), entry(place=(TOPIC, 1, 8))], Findings(twice=("a",))),
        (
            [accepted(), refused("b", stored="unknown")],
            [entry(), entry("b", place=(TOPIC, 2, 0))],
            Findings(twice=("a", "b")),
        ),
        ([refused()], [entry()], Findings(denied=("a",))),
        ([unanswered], [], Findings(unanswered=("a",))),
        (
            [Operation(4, PCM, True, None, None, 0, 1)],
            [],
            Findings(unanswered=("utterance 4",)),
        ),
        ([accepted()], [entry(place=(TOPIC, 1, 8))], Findings(misplaced=("a",))),
        ([accepted()], [entry(place=(TOPIC, 2, 7))], Findings(misplaced=("a",))),
        ([accepted(event_id="other")], [entry()], Findings(misplaced=("a",))),
        ([accepted()], [entry(pcm=OTHER)], Findings(altered=("a",))),
        ([accepted()], [entry(pcm=PCM[:4])], Findings(altered=("a",))),
        ([accepted(stored=PCM[:4])], [entry()], Findings(altered=("a",))),
        ([refused(stored="unknown")], [entry(pcm=PCM[:4])], Findings(altered=("a",))),
        ([], [entry()], Findings(strange=("a",))),
    ],
)
def test_broken_promise_is_found(operations, entries, findings):
    """Each kind of wrong shows as itself."""
    assert audit(operations, entries) == findings


def test_figures_count_operations_and_utterances():
    """An utterance that was tried twice counts once; what nobody knew may be in the log."""
    operations = [nobody_there, accepted(), refused("b", "unknown"), unanswered]
    assert figures(operations, [entry(), entry("b")]) == Figures(
        utterances=1,
        accepted=1,
        failed=1,
        unknown=1,
        unanswered=1,
        unknown_in_log=2,
        longest_seconds=3,
    )


def test_entry_is_read_from_its_record():
    """Key, place, ending and samples come from the record, the event's id from its value."""
    name = str(uuid.uuid4())
    payload = AudioInput(audio_bytes=wav.wrap(PCM))
    event = AudioInputEvent.new(correlation_id=name, source_service="gateway", payload=payload)
    record = ReceivedRecord(
        topic=TOPIC,
        partition=3,
        offset=9,
        key=name.encode(),
        value=encode(event, schema_id=1),
        headers={headers.ENDED_BY: "idle_timeout"},
        timestamp_ms=0,
    )
    assert Entry.of(record) == Entry(name, event.event_id, (TOPIC, 3, 9), "idle_timeout", PCM)
