"""Read records and say when they are done: the one place that consumes from Kafka.

The recogniser runs `poll` in a thread of its own, works on what it gets, and commits an offset only
after its result is stored. Nothing is committed automatically, so what is not done comes again:
every record at least once.
"""

import logging
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import cast

from confluent_kafka import (
    OFFSET_STORED,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    TopicPartition,
)

from speech_lib.errors import BrokerUnavailable
from speech_lib.kafka.apart import Try
from speech_lib.kafka.claims import READING, Claims
from speech_lib.kafka.membership import READER_KILLED, Membership
from speech_lib.kafka.peek import end_of_damage, is_damaged
from speech_lib.kafka.received import place, received
from speech_lib.kafka.records import ReceivedRecord
from speech_lib.kafka.settings import MAX_RECORD_BYTES, ClientConfig, KafkaSettings, client_logger

_log = logging.getLogger(__name__)

Partition = tuple[str, int]
"""A topic's name and the number of one of its partitions."""
Partitions = frozenset[Partition]
OnPartitions = Callable[[Partitions], None]


def consumer_config(kafka: KafkaSettings, *, group_id: str, client_id: str) -> ClientConfig:
    """Return librdkafka's configuration for a consumer that commits by itself."""
    return {
        **kafka.client_config(),
        "client.id": client_id,
        "group.id": group_id,
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "auto.offset.reset": "earliest",
        # Others keep their partitions, and the work on them, when a member comes or goes.
        "partition.assignment.strategy": "cooperative-sticky",
        # The partitions of a member that was killed go to others after this.
        "session.timeout.ms": 10_000,
        # A member learns from a heartbeat that others have come or gone.
        "heartbeat.interval.ms": 2_000,
        # A recogniser may take long for what it has; that it lives is told by heartbeats.
        "max.poll.interval.ms": 600_000,
        # What is fetched ahead stays within a few of the largest records.
        "max.partition.fetch.bytes": MAX_RECORD_BYTES,
        "fetch.max.bytes": 4 * MAX_RECORD_BYTES,
        "queued.max.messages.kbytes": 4 * MAX_RECORD_BYTES // 1024,
        "fetch.error.backoff.ms": 200,
        "socket.timeout.ms": 10_000,
        # A topic is made by the operator; once there, it is seen soon.
        "allow.auto.create.topics": False,
        "topic.metadata.refresh.interval.ms": 5_000,
    }


_READ_AHEAD: ClientConfig = {
    # Little, as others may get the partitions; a record that is larger is fetched all the same
    # (KIP-74).
    "max.partition.fetch.bytes": 256 * 1024,
    "fetch.max.bytes": MAX_RECORD_BYTES,
    "queued.max.messages.kbytes": 2 * 1024,
    # So small a queue is empty long before the default of a second is over.
    "fetch.queue.backoff.ms": 50,
    # The end of a partition tells that it may be read, where there is nothing to read.
    "enable.partition.eof": True,
}
_ASK_AGAIN_SECONDS = 2.0
_ASK_SECONDS = 5.0


def _ignore(_: Partitions) -> None:
    """Do nothing about a change of partitions."""


class RecordConsumer:
    """Reads topics as a member of a consumer group; one thread polls it.

    Args:
        kafka: How to reach the brokers.
        group_id: Members of one group share the partitions.
        topics: What to read; they may appear later.
        client_id: The name that the brokers know this client by.
        on_assign: Called with the partitions that have become this member's.
        on_revoke: Called with those that it loses: work on them must be forgotten, because another
            member starts at the last commit. What is done can still be committed during the call,
            unless the group has already given them away.
        try_apart: Done to the values of the first records in a process of its own, where the last
            reader of a partition did not give it back (see `claims`); None: no such care.
        client_options: Further settings of librdkafka, as for a measurement.

    Both are called by the thread that polls, during `poll` or `close`; they must not raise. The
    caller owes one `close`.
    """

    def __init__(
        self,
        kafka: KafkaSettings,
        *,
        group_id: str,
        topics: Sequence[str],
        client_id: str,
        on_assign: OnPartitions = _ignore,
        on_revoke: OnPartitions = _ignore,
        try_apart: Try | None = None,
        client_options: ClientConfig | None = None,
    ) -> None:
        config = consumer_config(kafka, group_id=group_id, client_id=client_id)
        config |= {**_READ_AHEAD, **(client_options or {})}
        self._on_assign, self._on_revoke = on_assign, on_revoke
        self._membership = Membership()
        self._early: list[ReceivedRecord] = []
        """Read where none was asked for: of a partition that came during such a call."""
        self._paused: Partitions = frozenset()
        self._mark = READING if try_apart else ""
        self._ask_again_at = 0.0
        self._config = config
        self._client = Consumer(config, logger=client_logger("consumer"))
        self._client.subscribe(
            list(topics), on_assign=self._gain, on_revoke=self._lose, on_lost=self._lose
        )
        self._claims = Claims(self._client, config, try_apart) if try_apart else None

    @property
    def trouble(self) -> str:
        """Why this member reads nothing, as of the last poll; empty where it is well.

        See `Membership.trouble`.
        """
        return self._membership.trouble

    def poll(self, timeout: float, max_records: int = 16) -> list[ReceivedRecord]:
        """Return what there is, at once if there is something; else wait `timeout` seconds. Blocks.

        Changes of the group's partitions are served here alone: call it every second or so, and at
        least every ten minutes, or the group gives the partitions to others. With 0 for
        `max_records` it does only that; what was fetched ahead is thrown away then, and is fetched
        again with the next call for records.

        Raises:
            BrokerUnavailable: This consumer can never read again; build a new one.
        """
        # What was read apart comes first, so that nothing is fetched far ahead of what is done.
        self._fetch(wanted=max_records > 0 and not self._early)
        if not self._early or max_records == 0:
            self._early += self._read(timeout, max_records)
        found, self._early = self._early[:max_records], self._early[max_records:]
        return found

    def commit(self, next_offsets: Mapping[Partition, int]) -> None:
        """Store, for each partition, the offset of the next record to read. Blocks.

        Raises:
            BrokerUnavailable: Nothing was stored, or not everything. Where the partitions are lost
                the records come again to another member; otherwise a later commit makes up for it.
        """
        offsets = [TopicPartition(*of, offset, self._mark) for of, offset in next_offsets.items()]
        if not offsets:
            return
        try:
            answers = self._client.commit(offsets=offsets, asynchronous=False)
        except KafkaException as error:
            raise BrokerUnavailable(error.args[0].name()) from None
        for answer in answers or []:
            if answer.error is not None:
                raise BrokerUnavailable(answer.error.name())
        for partition, offset in next_offsets.items():
            self._membership.committed(partition, offset)
        if self._claims:
            self._claims.committed(next_offsets)

    def close(self) -> None:
        """Leave the group, so that others get the partitions at once. Blocks for some seconds."""
        self._client.close()

    def _read(self, timeout: float, max_records: int) -> list[ReceivedRecord]:
        deadline = time.monotonic() + timeout
        while (first := self._client.poll(max(0.0, deadline - time.monotonic()))) is not None:
            # Without the first, `consume` would wait for the whole timeout to fill its list.
            rest = self._client.consume(max_records - 1, 0) if max_records > 1 else []
            if records := [found for each in (first, *rest) for found in self._records_of(each)]:
                return records
        return []

    def _records_of(self, message: Message) -> list[ReceivedRecord]:
        if is_damaged(message):
            return self._pass_over(message)
        return [received(message)] if self._is_record(message) else []

    def _pass_over(self, message: Message) -> list[ReceivedRecord]:
        """Go on behind a batch that cannot be read, and return what stands for its records.

        Nothing where its end cannot be found now: the client library tells of it again.
        """
        topic, partition, first = place(message)
        error = cast("KafkaError", message.error()).name()
        self._membership.damaged((topic, partition), error, sys.maxsize)
        try:
            at = TopicPartition(topic, partition)
            _, end = self._client.get_watermark_offsets(at, timeout=_ASK_SECONDS)
            good = end_of_damage(self._config, topic, partition, first, end)
            self._client.seek(TopicPartition(topic, partition, good))
        except (KafkaException, TimeoutError):  # no answer, or the partition is another's by now
            return []
        _log.warning("consumer: %s", error)
        self._membership.damaged((topic, partition), error, good)
        return [ReceivedRecord.damaged(topic, partition, first, good - 1)]

    def _is_record(self, message: Message) -> bool:
        """Tell a record from a report; note what is reported, raise what cannot be mended."""
        error = message.error()
        if error is None or error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001  # public
            self._membership.read(message.topic())
            return error is None
        if error.fatal():
            raise BrokerUnavailable(error.name())
        _log.warning("consumer: %s", error.name())
        self._membership.failed(error.name(), message.topic())
        self._ask_again_at = time.monotonic() + _ASK_AGAIN_SECONDS
        return False

    def _fetch(self, *, wanted: bool) -> None:
        """Fetch, or stop fetching; partitions that have come meanwhile are treated alike."""
        if not wanted:
            self._pause(_pairs(self._client.assignment()) - self._paused)
            return
        if self._membership.topic_fails and time.monotonic() >= self._ask_again_at:
            # librdkafka does not tell that a topic may be read again. Who pauses and goes on is
            # told anew: of the error, of the end, or of a record.
            self._ask_again_at = time.monotonic() + _ASK_AGAIN_SECONDS
            self._pause(_pairs(self._client.assignment()))
        if self._paused:
            self._resume(_pairs(self._client.assignment()) & self._paused)

    def _pause(self, partitions: Partitions) -> None:
        if partitions:
            self._client.pause([TopicPartition(*of) for of in sorted(partitions)])
        self._paused |= partitions

    def _resume(self, partitions: Partitions) -> None:
        if partitions:
            self._client.resume([TopicPartition(*of) for of in sorted(partitions)])
        self._paused -= partitions

    def _gain(self, _: Consumer, partitions: Sequence[TopicPartition]) -> None:
        self._membership.assigned()
        self._on_assign(_pairs(partitions))
        if self._claims and (early := self._claims.take(partitions)):
            self._early += early
            for each in early:
                if each.damaged_from is not None:
                    of = (each.topic, each.partition)
                    self._membership.damaged(of, READER_KILLED, each.offset + 1)
            self._client.incremental_assign(_behind(partitions, early))
            self._pause(_pairs(partitions))

    def _lose(self, _: Consumer, partitions: Sequence[TopicPartition]) -> None:
        lost = _pairs(partitions)
        self._membership.lost(lost)
        self._early = [each for each in self._early if (each.topic, each.partition) not in lost]
        self._on_revoke(lost)
        if self._claims:
            self._claims.give_back(lost)


def _behind(
    partitions: Sequence[TopicPartition], records: Sequence[ReceivedRecord]
) -> list[TopicPartition]:
    """Return where to read on; without an offset, where the group has committed."""
    read = {(each.topic, each.partition): each.offset + 1 for each in records}
    return [
        TopicPartition(
            each.topic, each.partition, read.get((each.topic, each.partition), OFFSET_STORED)
        )
        for each in partitions
    ]


def _pairs(partitions: Sequence[TopicPartition]) -> Partitions:
    return frozenset((each.topic, each.partition) for each in partitions)
