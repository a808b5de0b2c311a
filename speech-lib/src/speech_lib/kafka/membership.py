"""Whether a member of a consumer group may read: what the brokers have told it last.

Pure; `consumer` keeps one. A broker that is away is not told here: `readiness` asks for that.
"""

from collections.abc import Iterable

_OF_A_TOPIC = frozenset(
    {
        "TOPIC_AUTHORIZATION_FAILED",
        "UNKNOWN_TOPIC_OR_PART",
        "_UNKNOWN_TOPIC",
        "_UNKNOWN_PARTITION",
        "TOPIC_EXCEPTION",
    }
)
_OF_THE_GROUP = frozenset(
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
"""The group has not given this member its share yet."""
READER_KILLED = "reader_killed"
"""A record ended whoever read it, and is not passed over yet."""


class Membership:
    """What is known of one member.

    Attributes:
        trouble: Why it reads nothing, or not all: `NOT_JOINED`, `READER_KILLED` or the name of a
            Kafka error; empty where it is well, also without any partition, as where a group has
            more members than partitions.
        topic_fails: Whether what it reads is at fault, which no later assignment need mend.
    """

    def __init__(self) -> None:
        self._joined = False
        self._group_error = ""
        self._topic_errors: dict[str | None, str] = {}
        self._damaged: dict[tuple[str, int], tuple[str, int]] = {}

    @property
    def trouble(self) -> str:
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
        """Note that the group has given this member its share, which may be nothing."""
        self._joined = True
        self._group_error = ""
        self._topic_errors.clear()

    def failed(self, error: str, topic: str | None) -> None:
        """Note an error by its name; one that passes without anybody's help is ignored."""
        if error in _OF_A_TOPIC:
            self._topic_errors[topic] = error
        elif error in _OF_THE_GROUP:
            self._group_error = error

    def damaged(self, partition: tuple[str, int], error: str, passed_at: int) -> None:
        """Note records that cannot be read, and what commit will show that they are passed over."""
        self._damaged[partition] = (error, passed_at)

    def committed(self, partition: tuple[str, int], offset: int) -> None:
        """Note how far a partition is done."""
        if self._damaged.get(partition, ("", offset + 1))[1] <= offset:
            del self._damaged[partition]

    def lost(self, partitions: Iterable[tuple[str, int]]) -> None:
        """Note partitions that are another member's now, with what is wrong in them."""
        for partition in partitions:
            self._damaged.pop(partition, None)

    def read(self, topic: str | None) -> None:
        """Note that a topic could be read, up to its end or to a record."""
        self._topic_errors.pop(topic, None)
