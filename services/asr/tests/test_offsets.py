"""What may be committed while recognitions finish in any order."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from speech_asr.offsets import OffsetTracker

A, B = ("audio", 0), ("audio", 1)


@pytest.fixture
def tracker():
    tracker = OffsetTracker()
    tracker.assign([A, B])
    return tracker


def begin(tracker, partition, *offsets):
    return [tracker.begin(partition, offset) for offset in offsets]


def test_nothing_is_committed_before_something_is_finished(tracker):
    """A record in hand is still to be done by somebody."""
    begin(tracker, A, 0, 1)
    assert tracker.committable() == {}


def test_a_commit_names_the_offset_after_the_finished_record(tracker):
    """The next reader starts there."""
    begin(tracker, A, 7)
    tracker.finish(A, 7)
    assert tracker.committable() == {A: 8}


def test_a_record_that_finished_early_waits_for_those_before_it(tracker):
    """Otherwise the commit would pass a record that is not done."""
    begin(tracker, A, 4, 5, 6)
    tracker.finish(A, 6)
    tracker.finish(A, 5)
    assert tracker.committable() == {}
    tracker.finish(A, 4)
    assert tracker.committable() == {A: 7}


def test_partitions_do_not_wait_for_each_other(tracker):
    """Each has an order of its own."""
    begin(tracker, A, 0)
    begin(tracker, B, 3)
    tracker.finish(B, 3)
    assert tracker.committable() == {B: 4}


def test_offsets_that_the_log_leaves_out_are_passed(tracker):
    """Offsets have gaps where a transaction was marked or a record removed."""
    begin(tracker, A, 1, 5)
    tracker.finish(A, 1)
    assert tracker.committable() == {A: 2}
    tracker.finish(A, 5)
    assert tracker.committable() == {A: 6}


def test_a_commit_stays_due_until_the_broker_has_taken_it(tracker):
    """A failed commit is made up for by the next one."""
    begin(tracker, A, 0)
    tracker.finish(A, 0)
    assert tracker.committable() == tracker.committable() == {A: 1}
    tracker.committed({A: 1})
    assert tracker.committable() == {}


def test_what_finished_during_a_commit_is_due_after_it(tracker):
    """The broker took the older offset only."""
    begin(tracker, A, 0, 1)
    tracker.finish(A, 0)
    taken = tracker.committable()
    tracker.finish(A, 1)
    tracker.committed(taken)
    assert tracker.committable() == {A: 2}


def test_a_partition_given_up_is_neither_begun_nor_finished_nor_committed(tracker):
    """It is another member's now, which starts at the last commit."""
    begin(tracker, A, 0)
    tracker.forget([A])
    assert begin(tracker, A, 1) == [False]
    tracker.finish(A, 0)
    tracker.committed({A: 1})
    assert (tracker.committable(), tracker.assigned) == ({}, frozenset({B}))


def test_a_partition_that_comes_back_starts_anew(tracker):
    """Records of the time before do not count, unless they are in hand again."""
    begin(tracker, A, 0)
    tracker.forget([A])
    tracker.assign([A])
    tracker.finish(A, 0)
    assert tracker.committable() == {}
    assert begin(tracker, A, 0) == [True]
    tracker.finish(A, 0)
    assert tracker.committable() == {A: 1}


@given(order=st.permutations(range(8)))
def test_the_commit_is_always_the_first_unfinished_offset(order):
    """For any order of finishing, nothing unfinished is passed and nothing finished held back."""
    tracker = OffsetTracker()
    tracker.assign([A])
    begin(tracker, A, *range(8))
    finished = set()
    for offset in order:
        tracker.finish(A, offset)
        finished.add(offset)
        first_unfinished = min(set(range(9)) - finished)
        assert tracker.committable() == ({A: first_unfinished} if first_unfinished else {})
