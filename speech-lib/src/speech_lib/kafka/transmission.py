"""Tell a record that surely never left this process from one that a broker may have.

librdkafka knows whether a message was ever transmitted (`rd_kafka_message_status`), but
confluent-kafka does not pass that on. It does pass on the statistics, whose `txmsgs` counts, for
each partition, every message at the moment it is written into a Produce request, before a byte of
it goes to a socket (STATISTICS.md of librdkafka; `rd_kafka_msgset_writer_finalize`). So where no
count of any partition has moved from before the hand-over until after the failure, the record was
never in a request. Where one has moved, it may have been this record's, and nothing is certain.
A partition's counts begin anew where the topic was gone for a moment, so the Produce requests that
each broker was sent are compared too.

Used by `generation`, on its thread but for `mark`. Pure: statistics and time are arguments.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from speech_lib.errors import Certainty

PATIENCE_SECONDS = 0.8
"""How long an answer may be put off for statistics; without them the record may have left."""

_NEEDED = 2
"""Of two statistics that arrive after a failure the second was begun after it: they are made one
after the other, and one that was enqueued before the failure is delivered before it."""

_BEFORE_THE_FIRST = '{"topics": {}}'
"""What the statistics of a new producer would say: nothing has been sent."""

Verdict = Callable[[Certainty], None]
"""Takes `no` where the record surely never left, else `unknown`."""


@dataclass(frozen=True, slots=True)
class _Case:
    mark: str
    due: int
    deadline: float
    verdict: Verdict


class Transmissions:
    """What the statistics of one librdkafka producer say about the records it failed to deliver."""

    def __init__(self) -> None:
        self._latest = _BEFORE_THE_FIRST
        self._seen = 0
        self._cases: list[_Case] = []

    def mark(self) -> str:
        """Return what to compare with later; to be taken before the record is handed over.

        The text is not parsed unless the record fails: most records never need it.
        """
        return self._latest

    def judge(self, mark: str, now: float, verdict: Verdict) -> None:
        """Have `verdict` called when it is known whether a failed record may have left."""
        case = _Case(mark, self._seen + _NEEDED, now + PATIENCE_SECONDS, verdict)
        self._cases.append(case)

    def connected(self) -> bool:
        """Tell whether the latest statistics know of a broker that is connected."""
        try:
            brokers = json.loads(self._latest)["brokers"].values()
            return any(broker["state"] == "UP" for broker in brokers)
        except (ValueError, TypeError, LookupError, AttributeError):
            return False

    def note(self, statistics: str) -> None:
        """Take in statistics as they arrive, and decide what they decide."""
        self._latest = statistics
        self._seen += 1
        for case in self._take(lambda case: case.due <= self._seen):
            case.verdict("unknown" if _moved(case.mark, statistics) else "no")

    def expire(self, now: float) -> None:
        """Decide what has waited for too long."""
        for case in self._take(lambda case: case.deadline <= now):
            case.verdict("unknown")

    def _take(self, ripe: Callable[[_Case], bool]) -> list[_Case]:
        taken = [case for case in self._cases if ripe(case)]
        self._cases = [case for case in self._cases if not ripe(case)]
        return taken


def _moved(before: str, after: str) -> bool:
    """Tell whether any message was written into a request; also where that cannot be read."""
    try:
        earlier, later = json.loads(before), json.loads(after)
        return _messages(earlier) != _messages(later) or _was_asked(earlier, later)
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


def _was_asked(earlier: dict[str, Any], later: dict[str, Any]) -> bool:
    """Tell whether any broker was sent a Produce request in between.

    Only a count that has grown says so: a broker that has gone takes its count along.
    """
    before, after = _requests(earlier), _requests(later)
    return any(count > before.get(name, 0) for name, count in after.items())


def _requests(statistics: dict[str, Any]) -> dict[str, int]:
    brokers = statistics.get("brokers", {})
    return {name: broker["req"].get("Produce", 0) for name, broker in brokers.items()}
