"""How late the event loop runs what is due."""

import asyncio
import time
from itertools import pairwise

import pytest
from speech_lib.telemetry.looplag import LAG_SECONDS, measure

EVERY = 0.02
BLOCKED = 0.2


async def _measured(count: int, *, blocked: float = 0.0) -> list[float]:
    """Return what is reported until there are `count` values, the loop being blocked meanwhile."""
    lags: list[float] = []
    enough = asyncio.Event()

    def report(seconds: float) -> None:
        lags.append(seconds)
        if len(lags) == 1:
            time.sleep(blocked)  # what the measure is there to find
        if len(lags) >= count:
            enough.set()

    task = asyncio.create_task(measure(report, EVERY))
    try:
        await enough.wait()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    return lags


@pytest.mark.anyio
async def test_timers_are_reported_at_the_rate_asked_for():
    """Ten timers take ten times the interval, so nothing is reported early or twice."""
    begun = time.monotonic()
    lags = await _measured(10)
    assert time.monotonic() - begun >= 10 * EVERY
    assert (len(lags), min(lags) >= 0) == (10, True)


@pytest.mark.anyio
async def test_a_blocked_loop_counts_once_for_each_timer_that_it_missed():
    """The timers due during a block of ten intervals are late by what was left of it."""
    lags = await _measured(10, blocked=BLOCKED)
    left = [BLOCKED - EVERY * missed for missed in range(1, 9)]
    # Only from below: the machine may be busy, which makes everything later, nothing earlier.
    assert [lag >= least - 0.001 for lag, least in zip(lags[1:9], left, strict=True)] == [True] * 8


@pytest.mark.anyio
async def test_it_ends_when_it_is_cancelled():
    """A service that stops is not held up by it."""
    task = asyncio.create_task(measure(lambda _: None, EVERY))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def test_the_buckets_resolve_a_millisecond_to_a_second():
    """In order, from 1 ms to 1 s, none more than double the one before."""
    assert list(LAG_SECONDS) == sorted(set(LAG_SECONDS))
    assert (LAG_SECONDS[0], LAG_SECONDS[-1]) == (0.001, 1.0)
    assert all(high <= 2 * low for low, high in pairwise(LAG_SECONDS))
