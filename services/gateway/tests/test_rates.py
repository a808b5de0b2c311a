"""The token bucket, with made-up times."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from speech_gateway.rates import TokenBucket


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
