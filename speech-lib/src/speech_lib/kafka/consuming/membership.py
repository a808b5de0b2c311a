"""Whether a member of a consumer group reads, by what the brokers have told it last.

`consumer` keeps one `Membership`. Pure. It does not know whether a broker is away: `readiness`
checks that.
"""

from collections.abc import Iterable

from speech_lib.kafka.records import Partition

_TOPIC_ERRORS = frozenset(
    {
        "TOPIC_AUTHORIZATION_FAILED",
        "UNKNOWN_TOPIC_OR_PART",
        "_UNKNOWN_TOPIC",
        "_UNKNOWN_PARTITION",
        "TOPIC_EXCEPTION",
    }
)
_GROUP_ERRORS = frozenset(
    {
        "GROUP_AUTHORIZATION_FAILED",
        "INCONSISTENT_GROUP_PROTOCOL",  # others share the partitions in another way
        "INVALID_SESSION_TIMEOUT",
        "INVALID_GROUP_ID",
        "GROUP_MAX_SIZE_REACHED",
        "_MAX_POLL_EXCEEDED",
    }
)
NOT_JOINED = "not_joined"
"""The group has not assigned this member its share yet."""
READER_KILLED = "reader_killed"
"""A record killed its reader, and is not passed over yet."""


class Membership:
    """What is known of one member.

    Attributes:
        problem: Why it reads nothing, or not everything: `NOT_JOINED`, `READER_KILLED` or the name
            of a Kafka error. Empty where all is well, also where the group has more members than
            partitions and this one has none.
        topic_fails: Whether a topic is at fault. Its errors need not end with an assignment.
    """

    def __init__(self) -> None:
        self._joined = False
        self._group_error = ""
        self._topic_errors: dict[str | None, str] = {}
        self._damaged: dict[Partition, tuple[str, int]] = {}

    @property
    def problem(self) -> str:
        """See the class."""
        if self._group_error:
            return self._group_error
        if self._topic_errors:
            return next(iter(self._topic_errors.values()))
        if self._damaged:
            return next(iter(self._damaged.values()))[0]
        return "" if self._joined else NOT_JOINED

    @property
    def topic_fails(self) -> bool:
        """See the class."""
        return bool(self._topic_errors)

    def assigned(self) -> None:
        """Note that the group has assigned this member its share, which may be nothing."""
        self._joined = True
        self._group_error = ""
        self._topic_errors.clear()

    def failed(self, error: str, topic: str | None) -> None:
        """Note an error by its name. Errors that pass by themselves are ignored."""
        if error in _TOPIC_ERRORS:
            self._topic_errors[topic] = error
        elif error in _GROUP_ERRORS:
            self._group_error = error

    def damaged(self, partition: Partition, error: str, passed_at: int) -> None:
        """Note records that cannot be read, until a commit of at least `passed_at` passes them."""
        self._damaged[partition] = (error, passed_at)

    def committed(self, partition: Partition, offset: int) -> None:
        """Note a commit."""
        if self._damaged.get(partition, ("", offset + 1))[1] <= offset:
            del self._damaged[partition]

    def lost(self, partitions: Iterable[Partition]) -> None:
        """Forget the damage in partitions that are another member's now."""
        for partition in partitions:
            self._damaged.pop(partition, None)

    def read(self, topic: str | None) -> None:
        """Note that a topic could be read: a record of it, or the end of a partition."""
        self._topic_errors.pop(topic, None)
