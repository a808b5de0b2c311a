"""The back-off between librdkafka producers that fail for good or cannot be built.

`producer` asks it on its thread. Pure: time is an argument, seconds of the monotonic clock.

The first new producer comes at once, because it ends most failures. The pauses then grow, because a
failure that lasts (a right that was taken away) would be tried twice a second. Each change is one
log line.
"""

import logging

FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 3.0
"""A right that is given back is noticed within 5 s."""
PROBATION_SECONDS = 1.0
"""A new producer that fails like the one before it does so within half of this."""
FORGET_SECONDS = 60.0
"""After so long without a failure the next one counts as the first."""

_log = logging.getLogger(__name__)


class RebuildBackoff:
    """Counts the failures since the last stored record, and says when to build again."""

    def __init__(self) -> None:
        self._failures = 0
        self._reason = ""
        self._last = 0.0
        self._due = 0.0

    def failed(self, reason: str, now: float) -> None:
        """Count a producer that has failed for good, or could not be built."""
        if now - self._last > FORGET_SECONDS:
            self._failures, self._reason = 0, ""
        if reason != self._reason:
            _log.warning("producer failed for good: %s", reason)
        self._reason, self._last = reason, now
        self._due = now + self._pause()
        self._failures += 1

    def due(self, now: float) -> bool:
        """Return whether it is time to build the next producer."""
        return now >= self._due

    def trusts(self, built_at: float, now: float) -> bool:
        """Return whether a producer built at `built_at` can be called healthy.

        After one failure it can at once, after several when it has outlived its probation.
        """
        return self._failures <= 1 or now - built_at > PROBATION_SECONDS

    def stored(self) -> None:
        """End the back-off: the present producer has stored a record."""
        if self._failures:
            _log.warning("producer has been replaced")
        self._failures, self._reason = 0, ""

    def _pause(self) -> float:
        if not self._failures:
            return 0.0
        return min(FIRST_PAUSE_SECONDS * 2.0 ** (self._failures - 1), LONGEST_PAUSE_SECONDS)
