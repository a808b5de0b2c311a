"""Health: whether a service can do its work now, why not, and whether it should admit new clients.

Pure: time is an argument, in seconds of any clock that only goes forward. A service sets its
conditions (`broker`, `schema`, ...) as they change. `ops` answers `/readyz` from it. The gateway
asks it before each handshake.
"""

from collections.abc import Iterable

GRACE_SECONDS = 5.0
"""How long new clients are still admitted after a service that was ready is so no more."""

_NOT_YET = "not_yet_known"


class Health:
    """The named conditions of one service; none holds until it is set."""

    def __init__(self, conditions: Iterable[str], now: float) -> None:
        self._failed = dict.fromkeys(conditions, _NOT_YET)
        self._known = frozenset(self._failed)
        self._draining = False
        self._was_ready = not self._failed
        self._not_ready_since = now if self._failed else None

    def set(self, condition: str, ok: bool, reason: str = "", *, now: float) -> None:  # noqa: FBT001
        """Say that a condition holds or not; the `reason` why it does not is a short code.

        Raises:
            KeyError: the condition was not named at the start.
        """
        if condition not in self._known:
            raise KeyError(condition)
        if ok:
            self._failed.pop(condition, None)
        else:
            self._failed[condition] = reason
        self._note(now)

    def drain(self, now: float) -> None:
        """Say that the service is stopping; that is never taken back."""
        self._draining = True
        self._note(now)

    @property
    def ready(self) -> bool:
        """Whether all conditions hold and the service is not draining."""
        return not self._failed and not self._draining

    @property
    def reasons(self) -> dict[str, str]:
        """Return why the service is not ready, a reason for each condition; empty where it is."""
        return {"service": "draining"} | self._failed if self._draining else dict(self._failed)

    def not_ready_for(self, now: float) -> float:
        """Return for how many seconds the service has not been ready; 0 where it is."""
        return 0.0 if self._not_ready_since is None else now - self._not_ready_since

    def admits(self, now: float, grace: float = GRACE_SECONDS) -> bool:
        """Decide on a new client: a short loss of the broker is no reason to refuse it."""
        return self._was_ready and not self._draining and self.not_ready_for(now) < grace

    def _note(self, now: float) -> None:
        if self.ready:
            self._was_ready, self._not_ready_since = True, None
        elif self._not_ready_since is None:
            self._not_ready_since = now
