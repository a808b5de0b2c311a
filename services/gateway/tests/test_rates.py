"""The token bucket, with made-up times."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from speech_gateway.rates import AddressBuckets, TokenBucket


def takes(bucket: TokenBucket, count: int, at: float) -> list[bool]:
    return [bucket.take(at) for _ in range(count)]


def test_a_burst_of_the_capacity_passes_and_no_more() -> None:
    """The bucket starts full."""
    bucket = TokenBucket(3, 1, 50.0)
    assert takes(bucket, 5, 50.0) == [True, True, True, False, False]


def test_tokens_come_back_at_the_refill_rate() -> None:
    """Two a second: none after 0.49 s, one after 0.5 s, and what was refused cost nothing."""
    bucket = TokenBucket(3, 2, 50.0)
    takes(bucket, 3, 50.0)
    assert takes(bucket, 1, 50.49) == [False]
    assert takes(bucket, 2, 50.5) == [True, False]
    assert takes(bucket, 3, 51.5) == [True, True, False]


def test_a_bucket_is_never_more_than_full() -> None:
    """A long rest is worth one burst."""
    bucket = TokenBucket(2, 10, 0.0)
    assert takes(bucket, 3, 1_000.0) == [True, True, False]


def test_the_wait_is_exactly_until_the_next_token() -> None:
    """Nothing while one is left; then 1/refill, less what has passed, more for an advance."""
    bucket = TokenBucket(2, 4, 10.0)
    waits = [bucket.spend(at) for at in (10.0, 10.0, 10.25, 10.375, 11.0)]
    assert waits == [0.0, 0.25, 0.25, 0.375, 0.0]


def test_a_clock_that_stands_or_runs_back_earns_nothing() -> None:
    """Neither is anything earned twice when it runs on."""
    bucket = TokenBucket(1, 1, 10.0)
    assert takes(bucket, 2, 10.0) == [True, False]
    assert takes(bucket, 1, 5.0) == [False]
    assert takes(bucket, 1, 10.75) == [False]
    assert takes(bucket, 2, 11.0) == [True, False]


@pytest.mark.parametrize("rate", [1, 3, 7, 30, 200, 9_999])
def test_who_waits_as_told_is_never_refused(rate: int) -> None:
    """The rounding of floats neither refuses a token that was waited for nor adds one."""
    asked, told = TokenBucket(rate, rate, 123_456.789), TokenBucket(rate, rate, 123_456.789)
    now = 123_456.789
    for _ in range(3 * rate if rate < 1000 else 1000):
        assert asked.take(now)
        now += told.spend(now)


@settings(deadline=None)
@given(
    st.integers(1, 50),
    st.integers(1, 50),
    st.lists(st.floats(0, 2), max_size=60),
)
def test_no_span_of_time_passes_more_than_a_burst_and_the_refill(
    capacity: int, refill: int, pauses: list[float]
) -> None:
    """Whatever the rhythm: at most capacity + refill times the time that has passed."""
    bucket, now, passed = TokenBucket(capacity, refill, 0.0), 0.0, 0
    for pause in pauses:
        now += pause
        passed += sum(takes(bucket, 3, now))
        assert passed <= capacity + refill * now + 0.001


# One for each address


def test_addresses_do_not_share_a_bucket() -> None:
    """What one spends, another still has."""
    buckets = AddressBuckets(2, 1)
    assert [buckets.take("a", 0.0) for _ in range(3)] == [True, True, False]
    assert [buckets.take("b", 0.0) for _ in range(3)] == [True, True, False]
    assert [buckets.take("a", 1.0) for _ in range(2)] == [True, False]


def test_many_tokens_are_spent_at_once() -> None:
    """The wait is until the debt is paid and there is one token again."""
    buckets = AddressBuckets(10, 2)
    waits = [buckets.spend("a", 9, 0.0), buckets.spend("a", 4, 0.0), buckets.spend("b", 1, 0.0)]
    assert waits == [0.0, 2.0, 0.0]
    assert buckets.spend("a", 2, 2.0) == 1.0


def test_a_full_bucket_is_forgotten_when_another_is_used() -> None:
    """It would be as good as new."""
    buckets = AddressBuckets(10, 1)
    buckets.spend("a", 5, 0.0)
    buckets.spend("b", 1, 0.0)
    assert len(buckets) == 2
    buckets.spend("c", 1, 4.9)
    assert len(buckets) == 3  # b is full, but a came before it and is not
    buckets.spend("c", 1, 5.0)
    assert len(buckets) == 1


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 20), st.floats(0, 3))))
def test_forgetting_changes_no_answer(spent: list[tuple[str, int, float]]) -> None:
    """Each address is told what a bucket of its own for ever would tell it."""
    buckets, now = AddressBuckets(10, 4), 0.0
    lasting = {address: TokenBucket(10, 4, now) for address in "abc"}
    for address, tokens, pause in spent:
        now += pause
        assert buckets.spend(address, tokens, now) == lasting[address].spend(now, tokens)
