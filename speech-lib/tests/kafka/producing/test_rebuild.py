"""When a producer that failed is built anew, and what is said of it."""

import pytest
from speech_lib.kafka.producing.rebuild import FORGET_SECONDS, PROBATION_SECONDS, RebuildBackoff

NOW = 1000.0


def pauses(backoff: RebuildBackoff, count: int) -> list[float]:
    """Return the pause after each of so many failures, to half a second."""
    found = []
    for _ in range(count):
        backoff.failed("_FATAL", NOW)
        waits = (pause / 2 for pause in range(20))
        found.append(next(pause for pause in waits if backoff.due(NOW + pause)))
    return found


def test_pauses_grow_to_a_bound():
    """The first time at once, then half a second, doubled each time, at most three seconds."""
    assert pauses(RebuildBackoff(), 7) == [0.0, 0.5, 1.0, 2.0, 3.0, 3.0, 3.0]


def test_a_stored_record_ends_the_pauses():
    """What worked and fails again is a new failure."""
    backoff = RebuildBackoff()
    pauses(backoff, 4)
    backoff.stored()
    assert pauses(backoff, 2) == [0.0, 0.5]


def test_a_failure_long_ago_is_forgotten():
    """A gateway that nobody spoke to meanwhile does not wait for what was an hour ago."""
    backoff = RebuildBackoff()
    for _ in range(4):
        backoff.failed("_FATAL", NOW - FORGET_SECONDS - 1)
    assert pauses(backoff, 2) == [0.0, 0.5]


@pytest.mark.parametrize(("failures", "trusted"), [(0, True), (1, True), (2, False)])
def test_after_several_failures_a_new_producer_has_to_last(failures, trusted):
    """One failure is over with the new producer; after several it has to show that."""
    backoff = RebuildBackoff()
    for _ in range(failures):
        backoff.failed("_FATAL", NOW)
    assert backoff.trusts(NOW, NOW + 0.1) is trusted
    assert backoff.trusts(NOW, NOW + PROBATION_SECONDS + 0.1)


def test_each_change_is_told_once(caplog):
    """A failure that lasts is one line, another reason is another, and so is its end."""
    backoff = RebuildBackoff()
    backoff.stored()
    for reason in ("A", "A", "B", "B"):
        backoff.failed(reason, NOW)
    backoff.stored()
    backoff.stored()
    assert caplog.messages == [
        "producer failed for good: A",
        "producer failed for good: B",
        "producer has been replaced",
    ]
