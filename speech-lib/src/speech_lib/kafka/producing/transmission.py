"""Tell a record that surely never left this process from one that a broker may have.

Called by `client`, on the producer's thread except for `snapshot`. Pure: statistics and time are
arguments.

librdkafka knows whether a message was ever transmitted (`rd_kafka_message_status`), but
confluent-kafka does not pass that on. It does pass on the statistics. Their counter `txmsgs`, one
for each partition, grows when a message is written into a Produce request, before a byte of it goes
to a socket (librdkafka's STATISTICS.md, `rd_kafka_msgset_writer_finalize`). If no counter has grown
between the hand-over and the failure, the record was never in a request. If one has grown, it may
have been this record's, and nothing is certain. The counters of a partition start again at 0 where
its topic was gone for a moment. So the number of Produce requests to each broker is compared too.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from speech_lib.errors import Certainty

PATIENCE_SECONDS = 0.8
"""The longest wait for statistics. Without them the record may have left."""

_REPORTS_NEEDED = 2
"""The second report of statistics after a failure was begun after the failure: librdkafka makes one
after the other, and delivers one that it queued before the failure before it."""

_BEFORE_THE_FIRST = '{"topics": {}}'
"""The statistics of a new producer: nothing has been sent."""

Answer = Callable[[Certainty], None]
"""Takes `no` where the record surely never left, else `unknown`."""


@dataclass(frozen=True, slots=True)
class _Inquiry:
    snapshot: str
    due_at_report: int
    deadline: float
    answer: Answer


class Transmissions:
    """What the statistics of one librdkafka producer say about the records that it failed."""

    def __init__(self) -> None:
        self._latest = _BEFORE_THE_FIRST
        self._reports = 0
        self._inquiries: list[_Inquiry] = []

    def snapshot(self) -> str:
        """Return the statistics to compare with later; take them before the record is handed over.

        The text is parsed only if the record fails.
        """
        return self._latest

    def ask(self, snapshot: str, now: float, answer: Answer) -> None:
        """Have `answer` called once it is known whether a failed record may have left.

        Args:
            snapshot: The statistics from before its hand-over.
            now: Seconds of the monotonic clock.
            answer: Called by `update` or `expire`, within `PATIENCE_SECONDS`.
        """
        due = self._reports + _REPORTS_NEEDED
        self._inquiries.append(_Inquiry(snapshot, due, now + PATIENCE_SECONDS, answer))

    def connected(self) -> bool:
        """Return whether the latest statistics show a connected broker."""
        try:
            brokers = json.loads(self._latest)["brokers"].values()
            return any(broker["state"] == "UP" for broker in brokers)
        except (ValueError, TypeError, LookupError, AttributeError):
            return False

    def update(self, statistics: str) -> None:
        """Take new statistics (librdkafka's `stats_cb`), and answer what they decide."""
        self._latest = statistics
        self._reports += 1
        for inquiry in self._take(lambda inquiry: inquiry.due_at_report <= self._reports):
            inquiry.answer("unknown" if _moved(inquiry.snapshot, statistics) else "no")

    def expire(self, now: float) -> None:
        """Answer `unknown` to the inquiries that have waited too long for statistics."""
        for inquiry in self._take(lambda inquiry: inquiry.deadline <= now):
            inquiry.answer("unknown")

    def _take(self, is_ripe: Callable[[_Inquiry], bool]) -> list[_Inquiry]:
        taken = [inquiry for inquiry in self._inquiries if is_ripe(inquiry)]
        self._inquiries = [inquiry for inquiry in self._inquiries if not is_ripe(inquiry)]
        return taken


def _moved(before: str, after: str) -> bool:
    """Return whether any message was written into a request; True where that cannot be read."""
    try:
        earlier, later = json.loads(before), json.loads(after)
        return _messages(earlier) != _messages(later) or _has_new_request(earlier, later)
    except (ValueError, TypeError, LookupError, AttributeError):
        return True


def _messages(statistics: dict[str, Any]) -> dict[tuple[str, str], int]:
    """Return how many messages were written into requests, by topic and partition."""
    return {
        (name, partition): counters["txmsgs"]
        for name, topic in statistics["topics"].items()
        for partition, counters in topic["partitions"].items()
        if counters["txmsgs"]  # a partition that is learned meanwhile has sent nothing
    }


def _has_new_request(earlier: dict[str, Any], later: dict[str, Any]) -> bool:
    """Return whether any broker was sent a Produce request in between.

    Only a count that has grown says so: the count of a broker that has gone is missing.
    """
    before, after = _requests(earlier), _requests(later)
    return any(count > before.get(name, 0) for name, count in after.items())


def _requests(statistics: dict[str, Any]) -> dict[str, int]:
    brokers = statistics.get("brokers", {})
    return {name: broker["req"].get("Produce", 0) for name, broker in brokers.items()}
