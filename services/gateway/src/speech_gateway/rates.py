"""A token bucket that is told the time. Used by the session and by the connection."""

from __future__ import annotations

_ROUNDING = 1e-6
"""Seconds: who waited exactly as told may be early by the rounding of floats."""


class TokenBucket:
    """Allow bursts of `capacity` and `refill` a second after that.

    Time is any clock in seconds that does not run backwards; the bucket starts full.

    Kept as the one time at which the bucket will be full again (the virtual scheduling of ITU-T
    I.371's generic cell rate algorithm), because this runs for every message.
    """

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

    def spend(self, now: float) -> float:
        """Take one token, in advance if need be; return the seconds until there is another."""
        self._full_at = full_at = max(self._full_at, now) + self._each
        wait = full_at - self._slack - now
        return wait if wait > _ROUNDING else 0.0
