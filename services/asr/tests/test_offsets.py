"""What may be committed while recognitions finish in any order."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from speech_asr.offsets import OffsetTracker

A, B = ("audio", 0), ("audio", 1)


@pytest.fixture
def tracker():
    tracker = OffsetTracker(most_ahead=100, most_left=40)
    tracker.assign([A, B])
    return tracker


def begin(tracker, partition, *offsets, size=1):
    return [tracker.begin(partition, offset, size) for offset in offsets]


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


def test_a_partition_is_held_while_much_is_read_beyond_what_is_done(tracker):
    """From its limit on until half of that is done; the other one is read all the while."""
    begin(tracker, A, 0, 1, 2, size=33)
    begin(tracker, B, 0, size=99)
    assert tracker.held() == frozenset()
    begin(tracker, A, 3, size=1)
    assert tracker.held() == {A}
    tracker.finish(A, 2)
    tracker.finish(A, 1)
    tracker.finish(B, 0)
    assert tracker.held() == {A}  # its first record is not done
    tracker.finish(A, 0)
    assert tracker.held() == frozenset()


def test_a_held_partition_is_held_until_half_is_done(tracker):
    """Who stops reading throws away what was fetched."""
    begin(tracker, A, *range(10), size=10)
    assert tracker.held() == {A}
    for offset in range(5):
        assert tracker.held() == {A}
        tracker.finish(A, offset)
    assert tracker.held() == {A}
    tracker.finish(A, 5)
    assert tracker.held() == frozenset()


def test_a_partition_with_a_backlog_leaves_room_for_the_others(tracker):
    """It has its share of the records in hand, until half of them are done."""
    begin(tracker, A, *range(19))
    assert tracker.held() == frozenset()
    begin(tracker, A, 19)
    assert tracker.held() == {A}
    for offset in range(19, 9, -1):  # the first is not done, so nothing can be committed
        assert tracker.held() == {A}
        tracker.finish(A, offset)
    tracker.finish(A, 9)
    assert tracker.held() == frozenset()


def test_a_lone_partition_may_fill_all(tracker):
    """There are no others to leave room for."""
    tracker.forget([B])
    begin(tracker, A, *range(39))
    assert tracker.held() == frozenset()


@given(order=st.permutations(range(8)))
def test_the_commit_is_always_the_first_unfinished_offset(order):
    """For any order of finishing, nothing unfinished is passed and nothing finished held back."""
    tracker = OffsetTracker(most_ahead=100, most_left=40)
    tracker.assign([A])
    begin(tracker, A, *range(8))
    finished = set()
    for offset in order:
        tracker.finish(A, offset)
        finished.add(offset)
        first_unfinished = min(set(range(9)) - finished)
        assert tracker.committable() == ({A: first_unfinished} if first_unfinished else {})
