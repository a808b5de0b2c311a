"""A token bucket that is told the time. Used by the session and by the connection."""

from __future__ import annotations

_ROUNDING = 1e-6
"""A token that was waited for exactly may be short by the rounding of floats."""


class TokenBucket:
    """Allow bursts of `capacity` and `refill` a second after that.

    Time is any clock in seconds that does not run backwards; the bucket starts full.
    """

    def __init__(self, capacity: float, refill: float, now: float) -> None:
        self._capacity = capacity
        self._refill = refill
        self._tokens = capacity
        self._at = now

    def take(self, now: float) -> bool:
        """Take one token; False, and nothing taken, where there is none."""
        self._fill(now)
        if self._tokens < 1 - _ROUNDING:
            return False
        self._tokens -= 1
        return True

    def wait(self, now: float) -> float:
        """Return the seconds until a token is there, 0 if one is there now."""
        self._fill(now)
        missing = 1 - self._tokens
        return missing / self._refill if missing > _ROUNDING else 0.0

    def _fill(self, now: float) -> None:
        earned = (now - self._at) * self._refill
        self._tokens = min(self._capacity, self._tokens + max(0.0, earned))
        self._at = max(self._at, now)
