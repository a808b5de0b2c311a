"""A token bucket that is told the time, and one for each address."""

from __future__ import annotations

_ROUNDING = 1e-6
"""Seconds: who waited exactly as told may be early by the rounding of floats."""


class TokenBucket:
    """Allow bursts of `capacity` and `refill` a second after that.

    Time is any clock in seconds that does not run backwards; the bucket starts full.

    Kept as the one time at which the bucket will be full again (the virtual scheduling of ITU-T
    I.371's generic cell rate algorithm), because this runs for every message.
    """

    __slots__ = ("_each", "_full_at", "_slack")

    def __init__(self, capacity: float, refill: float, now: float) -> None:
        self._each = 1 / refill
        self._slack = (capacity - 1) / refill
        self._full_at = now

    def take(self, now: float) -> bool:
        """Take one token; False, and nothing taken, where there is none."""
        if self._full_at - now > self._slack + _ROUNDING:
            return False
        self._full_at = max(self._full_at, now) + self._each
        return True

    def spend(self, now: float, tokens: float = 1) -> float:
        """Take tokens, in advance if need be; return the seconds until there is another."""
        self._full_at = full_at = max(self._full_at, now) + self._each * tokens
        wait = full_at - self._slack - now
        return wait if wait > _ROUNDING else 0.0

    def is_full(self, now: float) -> bool:
        """Tell whether this bucket is as good as a new one."""
        return self._full_at <= now


class AddressBuckets:
    """A token bucket for each address.

    A bucket that is full again is forgotten, because a new one would be the same. So there are no
    more than addresses that were active within the time that the emptiest takes to fill.
    """

    def __init__(self, capacity: float, refill: float) -> None:
        self._capacity = capacity
        self._refill = refill
        self._buckets: dict[str, TokenBucket] = {}
        """The one that was used last at the end."""

    def __len__(self) -> int:
        return len(self._buckets)

    def take(self, address: str, now: float) -> bool:
        """Take one token of `address`; False, and nothing taken, where there is none."""
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
