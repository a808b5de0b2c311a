"""Token buckets: one for a stream, and a table of them by address. Pure: time is an argument.

Used by the session, the connection, the admission and the lines of the log.
"""

from __future__ import annotations

_ROUNDING = 1e-6
"""Seconds by which the rounding of floats may make a client early that waits as long as it must."""


class TokenBucket:
    """Allow bursts of `capacity` and `refill` a second after that.

    Time is any clock in seconds that does not run backwards; the bucket starts full.

    Its whole state is the time at which it will be full again (the virtual scheduling of ITU-T
    I.371's generic cell rate algorithm), because it runs for every message.
    """

    __slots__ = ("_each", "_full_at", "_slack")

    def __init__(self, capacity: float, refill: float, now: float) -> None:
        self._each = 1 / refill
        self._slack = (capacity - 1) / refill
        self._full_at = now

    def take(self, now: float) -> bool:
        """Take one token if there is one; return whether there was."""
        if self._full_at - now > self._slack + _ROUNDING:
            return False
        self._full_at = max(self._full_at, now) + self._each
        return True

    def spend(self, now: float, tokens: float = 1) -> float:
        """Take tokens, in advance if need be; return the seconds until there is another."""
        # Written out, because this runs for every message.
        self._full_at = full_at = max(self._full_at, now) + self._each * tokens
        wait = full_at - self._slack - now
        return wait if wait > _ROUNDING else 0.0

    def is_full(self, now: float) -> bool:
        """Return whether this bucket is as good as a new one."""
        return self._full_at <= now


class AddressBuckets:
    """A token bucket for each address.

    It forgets a bucket that is full again, because a new one would be the same. So it holds no more
    buckets than there were addresses in the time that the emptiest bucket takes to fill.
    """

    def __init__(self, capacity: float, refill: float) -> None:
        self._capacity = capacity
        self._refill = refill
        self._buckets: dict[str, TokenBucket] = {}
        """In the order of their last use."""

    def __len__(self) -> int:
        return len(self._buckets)

    def take(self, address: str, now: float) -> bool:
        """Take one token of `address` if there is one; return whether there was."""
        return self._of(address, now).take(now)

    def spend(self, address: str, tokens: float, now: float) -> float:
        """Take tokens, in advance if need be; return the seconds until there is another."""
        return self._of(address, now).spend(now, tokens)

    def _of(self, address: str, now: float) -> TokenBucket:
        bucket = self._buckets.pop(address, None) or TokenBucket(self._capacity, self._refill, now)
        self._forget_full(now)
        self._buckets[address] = bucket
        return bucket

    def _forget_full(self, now: float) -> None:
        while self._buckets:
            oldest = next(iter(self._buckets))
            if not self._buckets[oldest].is_full(now):
                return
            del self._buckets[oldest]
