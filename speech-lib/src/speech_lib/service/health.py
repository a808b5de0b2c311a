"""Health: whether a service can do its work now, why not, and whether it should admit new clients.

A service sets its conditions (`broker`, `schema`, ...) as they change. `ops` answers `/readyz` from
it, and the gateway asks it before each handshake. Pure: time is an argument, in seconds of any
monotonic clock.
"""

from collections.abc import Iterable

GRACE_SECONDS = 5.0
"""New clients are still admitted for so long after a service has stopped being ready."""

_NOT_YET = "not_yet_known"


class Health:
    """The named conditions of one service. None holds until it is set."""

    def __init__(self, conditions: Iterable[str], now: float) -> None:
        self._failed = dict.fromkeys(conditions, _NOT_YET)
        self._known = frozenset(self._failed)
        self._draining = False
        self._was_ready = not self._failed
        self._not_ready_since = now if self._failed else None

    def set(self, condition: str, ok: bool, reason: str = "", *, now: float) -> None:  # noqa: FBT001
        """Set whether a condition holds.

        Args:
            condition: Its name.
            ok: Whether it holds.
            reason: A short code for why it does not.
            now: Seconds.

        Raises:
            KeyError: The condition was not named at the start.
        """
        if condition not in self._known:
            raise KeyError(condition)
        if ok:
            self._failed.pop(condition, None)
        else:
            self._failed[condition] = reason
        self._note(now)

    def drain(self, now: float) -> None:
        """Note that the service is stopping. Nothing takes that back."""
        self._draining = True
        self._note(now)

    @property
    def ready(self) -> bool:
        """Whether all conditions hold and the service is not draining."""
        return not self._failed and not self._draining

    @property
    def reasons(self) -> dict[str, str]:
        """The reason for each condition that does not hold; empty where the service is ready."""
        return {"service": "draining"} | self._failed if self._draining else dict(self._failed)

    def not_ready_for(self, now: float) -> float:
        """Return the seconds for which the service has not been ready; 0 where it is."""
        return 0.0 if self._not_ready_since is None else now - self._not_ready_since

    def admits(self, now: float, grace: float = GRACE_SECONDS) -> bool:
        """Return whether to admit a new client. A short loss of the broker refuses nobody."""
        return self._was_ready and not self._draining and self.not_ready_for(now) < grace

    def _note(self, now: float) -> None:
        if self.ready:
            self._was_ready, self._not_ready_since = True, None
        elif self._not_ready_since is None:
            self._not_ready_since = now
