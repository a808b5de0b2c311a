"""Read records as a member of a consumer group, and commit what is done.

The recogniser polls on a thread, works on what it gets, and commits an offset only after its result
is stored. Nothing is committed automatically, so each record is read at least once. All other code
that consumes lies in `speech_lib.kafka.consuming`.
"""

import logging
import sys
import time
from collections.abc import Mapping, Sequence
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
from speech_lib.kafka.consuming.config import READ_LITTLE_AHEAD, consumer_config
from speech_lib.kafka.consuming.crash_marks import READING, CrashMarks
from speech_lib.kafka.consuming.isolated_read import TrialDecode
from speech_lib.kafka.consuming.lag import Lag
from speech_lib.kafka.consuming.membership import READER_KILLED, Membership
from speech_lib.kafka.consuming.offset_reader import end_of_batch, is_damaged
from speech_lib.kafka.message import place, received
from speech_lib.kafka.records import OnPartitions, Partition, Partitions, ReceivedRecord
from speech_lib.kafka.settings import ClientConfig, KafkaSettings, client_logger

_log = logging.getLogger(__name__)

_ASK_AGAIN_SECONDS = 2.0
_ASK_SECONDS = 5.0


def _ignore(_: Partitions) -> None:
    """Do nothing about a change of partitions."""


class RecordConsumer:
    """Reads topics as a member of a consumer group. One thread polls it.

    The polling thread calls `on_assign` and `on_revoke`, during `poll` or `close`. They must not
    raise. The caller owes one `close`.

    Args:
        kafka: How to reach the brokers.
        group_id: Members of one group share the partitions.
        topics: What to read. They may appear later.
        client_id: The name that the brokers know this client by.
        on_assign: Called with the partitions that this member has gained.
        on_revoke: Called with those that it loses. Work on them must be forgotten, because another
            member starts at the last commit. What is done can still be committed during the call,
            unless the group has already given them away.
        trial_decode: Called in a process of its own with the values of the first records, where the
            last reader of a partition crashed (see `crash_marks`). None: no such care.
        client_options: Further settings of librdkafka, as for a measurement.
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
        trial_decode: TrialDecode | None = None,
        client_options: ClientConfig | None = None,
    ) -> None:
        config = consumer_config(kafka, group_id=group_id, client_id=client_id)
        config |= {**READ_LITTLE_AHEAD, **(client_options or {})}
        self._on_assign, self._on_revoke = on_assign, on_revoke
        self._membership = Membership()
        self._early: list[ReceivedRecord] = []
        """Records that no `poll` has returned yet."""
        self._paused: Partitions = frozenset()
        self._mark = READING if trial_decode else ""
        self._ask_again_at = 0.0
        self._config = config
        self._client = Consumer(config, logger=client_logger("consumer"))
        self._client.subscribe(
            list(topics), on_assign=self._gain, on_revoke=self._lose, on_lost=self._lose
        )
        self._lag = Lag(self._client)
        self._crash_marks = CrashMarks(self._client, config, trial_decode) if trial_decode else None

    @property
    def problem(self) -> str:
        """Why this member reads nothing, as of the last poll; empty where all is well.

        See `Membership.problem`.
        """
        return self._membership.problem

    def poll(
        self, timeout: float, max_records: int = 16, held: Partitions = frozenset()
    ) -> list[ReceivedRecord]:
        """Return the records there are; wait for the first one. Blocks.

        Only this call serves changes of the group's partitions. Call it every second or so, and at
        least every ten minutes, or the group gives the partitions to others.

        Args:
            timeout: Seconds to wait for the first record.
            max_records: The most records to return. With 0 it only serves changes. It then throws
                away what was fetched ahead, and the next call fetches that again.
            held: Partitions to read nothing from. What was fetched ahead of them is thrown away.

        Raises:
            BrokerUnavailable: This consumer can never read again. Build a new one.
        """
        # Records read in isolation come first, so that nothing is fetched far ahead of the commits.
        self._fetch(wanted=max_records > 0 and not self._early, held=held)
        if not self._early or max_records == 0:
            self._early += self._read(timeout, max_records)
        found, self._early = self._early[:max_records], self._early[max_records:]
        return found

    def commit(self, next_offsets: Mapping[Partition, int]) -> None:
        """Store, for each partition, the offset of the next record to read. Blocks.

        Raises:
            BrokerUnavailable: Nothing was stored, or not everything. Where the partitions are lost,
                the records come again to another member. Otherwise a later commit makes up for it.
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
        if self._crash_marks:
            self._crash_marks.committed(next_offsets)

    def lags(self) -> dict[Partition, int]:
        """Return the number of unread records of each partition; see `Lag.by_partition`.

        Call it on the polling thread. Blocks for at most a second.
        """
        return self._lag.by_partition()

    def close(self) -> None:
        """Leave the group, so that others get the partitions at once. Blocks for some seconds."""
        self._client.close()

    def _read(self, timeout: float, max_records: int) -> list[ReceivedRecord]:
        deadline = time.monotonic() + timeout
        while (first := self._client.poll(max(0.0, deadline - time.monotonic()))) is not None:
            # Called alone, `consume` would wait for the whole timeout to fill its list.
            rest = self._client.consume(max_records - 1, 0) if max_records > 1 else []
            if records := [found for each in (first, *rest) for found in self._records_of(each)]:
                return records
        return []

    def _records_of(self, message: Message) -> list[ReceivedRecord]:
        if is_damaged(message):
            return self._pass_over(message)
        return [received(message)] if self._is_record(message) else []

    def _pass_over(self, message: Message) -> list[ReceivedRecord]:
        """Seek past a batch that cannot be read, and return the stand-in for its records.

        Returns nothing where its end cannot be found now: the client library reports it again.
        """
        topic, partition, first = place(message)
        error = cast("KafkaError", message.error()).name()
        self._membership.damaged((topic, partition), error, sys.maxsize)
        try:
            at = TopicPartition(topic, partition)
            _, end = self._client.get_watermark_offsets(at, timeout=_ASK_SECONDS)
            good = end_of_batch(self._config, topic, partition, first, end)
            self._client.seek(TopicPartition(topic, partition, good))
        except (KafkaException, TimeoutError):  # no answer, or the partition is another's by now
            return []
        _log.warning("consumer: %s", error)
        self._membership.damaged((topic, partition), error, good)
        return [ReceivedRecord.damaged(topic, partition, first, good - 1)]

    def _is_record(self, message: Message) -> bool:
        """Return whether a message is a record; note what it reports otherwise.

        Raises:
            BrokerUnavailable: It reports a fatal error.
        """
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

    def _fetch(self, *, wanted: bool, held: Partitions) -> None:
        """Fetch, or stop fetching, also from partitions that were gained meanwhile."""
        if not wanted:
            self._pause(_pairs(self._client.assignment()) - self._paused)
            return
        if self._membership.topic_fails and time.monotonic() >= self._ask_again_at:
            # librdkafka does not report that a topic may be read again. After a pause it reports
            # anew: the error, the end, or a record.
            self._ask_again_at = time.monotonic() + _ASK_AGAIN_SECONDS
            self._pause(_pairs(self._client.assignment()))
        if self._paused or held:
            assigned = _pairs(self._client.assignment())
            self._pause(held & assigned - self._paused)
            self._resume(assigned & self._paused - held)

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
        if self._crash_marks and (early := self._crash_marks.assigned(partitions)):
            self._early += early
            for each in early:
                if each.damaged_from is not None:
                    self._membership.damaged(each.topic_partition, READER_KILLED, each.offset + 1)
            self._client.incremental_assign(_behind(partitions, early))
            self._pause(_pairs(partitions))

    def _lose(self, _: Consumer, partitions: Sequence[TopicPartition]) -> None:
        lost = _pairs(partitions)
        self._membership.lost(lost)
        self._early = [each for each in self._early if each.topic_partition not in lost]
        self._on_revoke(lost)
        if self._crash_marks:
            self._crash_marks.revoked(lost)


def _behind(
    partitions: Sequence[TopicPartition], records: Sequence[ReceivedRecord]
) -> list[TopicPartition]:
    """Return where to read on: behind the records, else at the group's commit."""
    read = {each.topic_partition: each.offset + 1 for each in records}
    return [
        TopicPartition(
            each.topic, each.partition, read.get((each.topic, each.partition), OFFSET_STORED)
        )
        for each in partitions
    ]


def _pairs(partitions: Sequence[TopicPartition]) -> Partitions:
    return frozenset((each.topic, each.partition) for each in partitions)
