"""Keep the workers busy with records and commit what is done: the loop of the service.

`__main__` runs it. The consumer blocks, so each of its calls runs in a thread; between two calls
the loop starts what was read and commits what is stored. More records are in hand than there are
workers, so that the utterances of one client do not keep away those of others behind them: `pool`
takes the next one in fair order. Only so many are in hand at once. At the limit the loop waits for
one to end without a poll, because a poll for nothing throws away what was fetched ahead; after a
second it polls all the same, because that is how the consumer learns of changes in its group.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from speech_lib.errors import BrokerUnavailable
from speech_lib.kafka.records import OnPartitions, Partition, Partitions, ReceivedRecord
from speech_lib.kafka.settings import MAX_AHEAD_BYTES
from speech_lib.service.logs import get_logger

from speech_asr.metrics import Metrics
from speech_asr.offsets import OffsetTracker

DRAIN_SECONDS = 20.0
"""What recognitions that have begun get to end after the first signal; others are done again."""
WINDOW_RECORDS = 128
"""In hand at once: twice as many as there may be workers, so that none waits for its next one."""
WINDOW_BYTES = 32 * 1024 * 1024
"""Of records in hand; their samples take as much again."""
_POLL_SECONDS = 0.1
_UNPOLLED_SECONDS = 1.0
"""How long a change of the group may wait to be served."""
_REOPEN_SECONDS = 1.0
_LAG_EVERY_SECONDS = 1.0

_log = get_logger(__name__)


class Consumer(Protocol):
    """A member of a consumer group; every call blocks (`speech_lib.kafka.consumer`)."""

    @property
    def problem(self) -> str:
        """Why it reads nothing, as of the last poll; empty where it is well."""
        ...

    def poll(
        self, timeout: float, max_records: int = ..., held: Partitions = ...
    ) -> list[ReceivedRecord]:
        """Return records, waiting for the first one, of no partition that is held.

        With a maximum of 0 only serve the group.
        """
        ...

    def commit(self, next_offsets: Mapping[Partition, int]) -> None:
        """Store the next offset of partitions."""
        ...

    def lags(self) -> Mapping[Partition, int]:
        """Return how many records of each of its partitions it has not read yet."""
        ...

    def close(self) -> None:
        """Leave the group."""
        ...


class Stop(Protocol):
    """What was asked for by signals (`speech_lib.service.run.StopSignals`)."""

    drain: asyncio.Event
    now: asyncio.Event


OpenConsumer = Callable[[OnPartitions, OnPartitions], Consumer]
"""Joins the group; takes what to call for partitions gained, and for partitions lost."""
Handle = Callable[[ReceivedRecord, Callable[[], None]], Awaitable[None]]
"""Brings a record to its end. Calls its second argument when work on it has begun, which is worth
ending even if its partition is lost; a return means that its result is stored."""
Report = Callable[[bool, str], None]
"""Takes whether this service reads as a member of its group, and if not, why."""


@dataclass(slots=True, eq=False)
class _Job:
    """A record in hand."""

    partition: Partition
    size: int
    begun: bool = False

    def begin(self) -> None:
        """Note that work on it has begun."""
        self.begun = True


class _Member:
    """One membership in the group: its consumer, its partitions and their offsets.

    The methods that block run in a thread, one at a time.
    """

    def __init__(self, open_consumer: OpenConsumer, on_lost: OnPartitions, capacity: int) -> None:
        self.tracker = OffsetTracker(MAX_AHEAD_BYTES, capacity)
        self._on_lost = on_lost
        self._commit_failing = False
        self._consumer = open_consumer(self.tracker.assign, self._give_up)

    @property
    def problem(self) -> str:
        """Why it reads nothing; empty where it is well."""
        return self._consumer.problem

    def poll(self, room: int) -> list[ReceivedRecord]:
        """Return at most `room` records that this member may work on. Blocks."""
        found = self._consumer.poll(_POLL_SECONDS, room, self.tracker.held())
        return [r for r in found if self.tracker.begin((r.topic, r.partition), r.offset, r.size)]

    def commit(self) -> None:
        """Commit what is stored; if that fails, a later commit makes up for it. Blocks."""
        offsets = self.tracker.committable()
        if not offsets:
            return
        try:
            self._consumer.commit(offsets)
        except BrokerUnavailable as error:
            if not self._commit_failing:
                _log.warning("commit_failed", reason=error.reason)
            self._commit_failing = True
            return
        self._commit_failing = False
        self.tracker.committed(offsets)

    def lags(self) -> Mapping[Partition, int]:
        """Return how many records of each of its partitions it has not read yet. Blocks."""
        return self._consumer.lags()

    def leave(self) -> None:
        """Commit and leave the group. Blocks."""
        self.commit()
        self._consumer.close()

    def _give_up(self, partitions: Partitions) -> None:
        """Commit what is stored while these partitions are still ours, then forget them."""
        self.commit()
        self.tracker.forget(partitions)
        self._on_lost(partitions)


def _soon(loop: asyncio.AbstractEventLoop, drop: OnPartitions, partitions: Partitions) -> None:
    """Have the loop drop what is in hand of partitions; called on the thread that polls."""
    loop.call_soon_threadsafe(drop, partitions)


class Pipeline:
    """Reads utterances and has each handled, as many at once as the window holds.

    Args:
        open_consumer: Joins the group.
        handle: Brings one record to its end.
        capacity: The largest number of records in hand.
        max_bytes: What they may take, but for what the last poll brings.
        metrics: Where the number of those is shown, and that of the records that are not read yet.
        report: Told when it becomes another whether this service reads.
        drain_seconds: What those that have begun get to end when the service stops.
    """

    def __init__(
        self,
        open_consumer: OpenConsumer,
        handle: Handle,
        *,
        capacity: int,
        max_bytes: int = WINDOW_BYTES,
        metrics: Metrics,
        report: Report = lambda *_: None,
        drain_seconds: float = DRAIN_SECONDS,
    ) -> None:
        self._open_consumer = open_consumer
        self._handle = handle
        self._capacity = capacity
        self._max_bytes = max_bytes
        self._drain_seconds = drain_seconds
        self._in_hand: dict[asyncio.Task[None], _Job] = {}
        self._ended_one = asyncio.Event()
        self._report = report
        self._trouble: str | None = None
        self._defect: BaseException | None = None
        self._metrics = metrics
        self._lag_due = 0.0
        metrics.in_hand.set_function(lambda: len(self._in_hand))
        metrics.waiting.set_function(lambda: sum(not job.begun for job in self._in_hand.values()))

    async def run(self, stop: Stop) -> None:
        """Work until a signal comes; end what has begun, commit it and leave the group.

        What has not begun is dropped at once, the rest at the deadline or when a second signal
        comes. It is not committed, so another member does it.
        """
        while not stop.drain.is_set():
            loop = asyncio.get_running_loop()
            on_lost = partial(_soon, loop, self._drop_waiting)
            member = await asyncio.to_thread(_Member, self._open_consumer, on_lost, self._capacity)
            try:
                await self._work(member, stop)
            except BrokerUnavailable as error:
                _log.warning("consumer_replaced", reason=error.reason)
                self._tell(error.reason)
                await asyncio.sleep(_REOPEN_SECONDS)
            finally:
                await self._drop()
                await asyncio.to_thread(member.leave)
                self._metrics.show_lag({})

    async def _work(self, member: _Member, stop: Stop) -> None:
        while not stop.drain.is_set():
            room = self._room()
            if room > 0 or not await self._place_is_freed():
                await self._turn(member, room=room)
        self._drop_waiting(member.tracker.assigned)
        deadline = asyncio.get_running_loop().time() + self._drain_seconds
        while self._in_hand and not stop.now.is_set():
            if asyncio.get_running_loop().time() > deadline:
                return
            await self._turn(member, room=0)

    def _room(self) -> int:
        """Return how many more records may be taken in hand."""
        if sum(job.size for job in self._in_hand.values()) >= self._max_bytes:
            return 0
        return self._capacity - len(self._in_hand)

    async def _turn(self, member: _Member, *, room: int) -> None:
        for record in await asyncio.to_thread(member.poll, room):
            self._start(member, record)
        self._tell(member.problem)
        await asyncio.to_thread(member.commit)
        await self._show_lag(member)
        if self._defect is not None:
            raise self._defect

    async def _place_is_freed(self) -> bool:
        """Wait for a record in hand to end, for as long as the group may do without a poll."""
        self._ended_one.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(_UNPOLLED_SECONDS):
                await self._ended_one.wait()
        return self._ended_one.is_set()

    def _start(self, member: _Member, record: ReceivedRecord) -> None:
        job = _Job((record.topic, record.partition), record.size)
        task = asyncio.create_task(self._finish(member, record, job))
        self._in_hand[task] = job
        task.add_done_callback(self._ended)

    def _tell(self, trouble: str) -> None:
        if trouble != self._trouble:
            self._trouble = trouble
            self._report(not trouble, trouble)

    async def _show_lag(self, member: _Member) -> None:
        now = asyncio.get_running_loop().time()
        if now >= self._lag_due:
            self._lag_due = now + _LAG_EVERY_SECONDS
            self._metrics.show_lag(await asyncio.to_thread(member.lags))

    def _ended(self, task: asyncio.Task[None]) -> None:
        del self._in_hand[task]
        self._ended_one.set()
        if not task.cancelled():
            self._defect = self._defect or task.exception()

    async def _finish(self, member: _Member, record: ReceivedRecord, job: _Job) -> None:
        await self._handle(record, job.begin)
        member.tracker.finish((record.topic, record.partition), record.offset)

    def _drop_waiting(self, partitions: Partitions) -> None:
        """Drop what no work has begun on: whoever has these partitions now does all of it."""
        for task, job in self._in_hand.items():
            if job.partition in partitions and not job.begun:
                task.cancel()

    async def _drop(self) -> None:
        """Drop what is still in hand."""
        for task in self._in_hand:
            task.cancel()
        await asyncio.gather(*self._in_hand, return_exceptions=True)
