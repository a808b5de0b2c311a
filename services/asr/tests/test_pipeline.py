"""The loop: how much is in hand, when it is committed, and what a signal changes."""

import asyncio

import pytest
from speech_asr.metrics import Metrics
from speech_asr.pipeline import WINDOW_BYTES, Pipeline
from speech_lib.errors import BrokerUnavailable
from speech_lib.kafka.records import Record
from speech_lib.kafka.settings import MAX_AHEAD_BYTES
from speech_lib.service.run import StopSignals
from speech_lib.testing.fakes import FakeBroker, FakeConsumer

TOPIC, GROUP = "audio", "asr"


class Work:
    """Stands for the way of an utterance: it ends when the test says so.

    Attributes:
        begun: The offsets in the order in which they came.
        cancelled: Those that were dropped before their end.
        without_worker: Those that wait for a worker.
    """

    def __init__(self):
        self.begun = []
        self.cancelled = []
        self.without_worker = set()
        self.most = 0
        self._gates = {}
        self._running = 0

    def gate(self, offset):
        return self._gates.setdefault(offset, asyncio.Event())

    async def __call__(self, record, on_begun):
        self.begun.append(record.offset)
        if record.offset not in self.without_worker:
            on_begun()
        self._running += 1
        self.most = max(self.most, self._running)
        try:
            await self.gate(record.offset).wait()
        except asyncio.CancelledError:
            self.cancelled.append(record.offset)
            raise
        finally:
            self._running -= 1


class Scene:
    """A topic with records, a pipeline that reads it, and what has been committed."""

    def __init__(
        self,
        records,
        *,
        capacity=4,
        max_bytes=WINDOW_BYTES,
        drain_seconds=5.0,
        consumer=FakeConsumer,
        value=b"value",
    ):
        self.broker = FakeBroker()
        self.work = Work()
        self.signals = StopSignals()
        self.consumers = []
        self.metrics = Metrics()
        self.reports = []
        self._consumer = consumer
        self.pipeline = Pipeline(
            self._open,
            self.work,
            capacity=capacity,
            max_bytes=max_bytes,
            metrics=self.metrics,
            report=lambda *report: self.reports.append(report),
            drain_seconds=drain_seconds,
        )
        for _ in range(records):
            self.broker.append(Record(TOPIC, b"key", value))

    def _open(self, on_assign, on_revoke):
        options = {"group_id": GROUP, "topics": [TOPIC]}
        new = self._consumer(self.broker, **options, on_assign=on_assign, on_revoke=on_revoke)
        self.consumers.append(new)
        return new

    @property
    def committed(self):
        return self.broker.committed[GROUP].get((TOPIC, 0), 0)

    def finish(self, *offsets):
        for offset in offsets:
            self.work.gate(offset).set()


class CountingConsumer(FakeConsumer):
    """Tells how often it was polled, and for how many records."""

    polls = 0

    def poll(self, timeout, max_records=16, held=frozenset()):
        self.polls += 1
        self.asked = [*getattr(self, "asked", []), max_records]
        self.held = held
        return super().poll(timeout, max_records, held)


class OneByOne(CountingConsumer):
    """Gives one record a poll."""

    def poll(self, timeout, max_records=16, held=frozenset()):
        return super().poll(timeout, min(max_records, 1), held)


async def until(condition):
    """Wait until something is so that nobody tells; the test's own time limit bounds it."""
    while not condition():  # noqa: ASYNC110 - the loop in the middle has no event for it
        await asyncio.sleep(0.005)


async def some_turns(scene):
    """Let the loop go round, so that it has had its chance to do what it must not."""
    turns = scene.consumers[0].polls
    await until(lambda: scene.consumers[0].polls > turns + 5)


def play(scene, script):
    """Run the pipeline and a script beside it; the script ends with a signal."""

    async def both():
        running = asyncio.create_task(scene.pipeline.run(scene.signals))
        try:
            await script(scene)
            await running
        finally:
            running.cancel()

    asyncio.run(both())


def test_all_that_is_finished_is_committed():
    """After the last record the group stands at the end of the log."""

    async def script(scene):
        scene.finish(*range(10))
        await until(lambda: scene.committed == 10)
        scene.signals.receive()

    scene = Scene(10)
    play(scene, script)
    assert sorted(scene.work.begun) == list(range(10))


def test_only_so_many_are_in_hand():
    """The rest stays with the broker until one is finished."""

    async def script(scene):
        await until(lambda: len(scene.work.begun) == 3)
        assert scene.metrics.registry.get_sample_value("speech_asr_utterances_in_hand") == 3
        for offset in range(10):
            scene.finish(offset)
            await until(lambda offset=offset: scene.committed == offset + 1)
        scene.signals.receive()

    scene = Scene(10, capacity=3)
    play(scene, script)
    assert scene.work.most == 3


def test_what_is_in_hand_is_bounded_by_its_bytes():
    """Few long utterances take as much memory as many short ones; the last may go beyond."""

    async def script(scene):
        await until(lambda: len(scene.work.begun) == 3)
        for offset in range(10):
            scene.finish(offset)
            await until(lambda offset=offset: scene.committed == offset + 1)
        scene.signals.receive()

    scene = Scene(10, capacity=8, max_bytes=25_000, value=bytes(10_000), consumer=OneByOne)
    play(scene, script)
    assert scene.work.most == 3


def test_a_partition_is_not_read_far_beyond_what_is_done():
    """So much of it would be read apart after a crash, and done again."""
    held = frozenset({(TOPIC, 0)})

    async def script(scene):
        await until(lambda: len(scene.work.begun) == 5)
        scene.finish(1, 2, 3, 4)
        await until(lambda: scene.consumers[0].held == held)
        await some_turns(scene)
        assert len(scene.work.begun) == 5
        scene.finish(0)
        await until(lambda: len(scene.work.begun) == 6)
        assert scene.consumers[0].held == frozenset()
        scene.finish(5)
        await until(lambda: scene.committed == 6)
        scene.signals.receive()

    large = bytes(MAX_AHEAD_BYTES // 5)
    play(Scene(6, capacity=8, value=large, consumer=OneByOne), script)


def test_whoever_has_enough_to_do_does_not_poll_for_nothing():
    """That would throw away what was fetched ahead, which is then fetched with every record."""

    async def script(scene):
        await until(lambda: len(scene.work.begun) == 2)
        for offset in range(9):
            scene.finish(offset)
            await until(lambda offset=offset: scene.committed == offset + 1)
        assert 0 not in scene.consumers[0].asked
        scene.finish(9)
        scene.signals.receive()

    play(Scene(10, capacity=2, consumer=CountingConsumer), script)


def test_whoever_has_enough_to_do_serves_the_group_all_the_same():
    """Others wait for the partitions that they are to get; it takes no record meanwhile."""

    async def script(scene):
        await until(lambda: scene.consumers and 0 in getattr(scene.consumers[0], "asked", []))
        assert scene.work.begun == [0, 1]
        scene.finish(*range(10))
        await until(lambda: scene.committed == 10)
        scene.signals.receive()

    play(Scene(10, capacity=2, consumer=CountingConsumer), script)


def test_whether_it_reads_is_told_when_it_changes():
    """Why not, as soon as it is known, and that it does again."""

    async def script(scene):
        await until(lambda: scene.reports == [(True, "")])
        scene.consumers[0].problem = "GROUP_AUTHORIZATION_FAILED"
        await until(lambda: len(scene.reports) == 2)
        scene.consumers[0].problem = ""
        await until(lambda: len(scene.reports) == 3)
        scene.signals.receive()

    scene = Scene(0)
    play(scene, script)
    assert scene.reports == [(True, ""), (False, "GROUP_AUTHORIZATION_FAILED"), (True, "")]


def test_what_waits_unread_can_be_seen_until_the_partition_is_given_up():
    """The lag of a partition is told while it is this member's, and no longer."""
    lag = ("speech_asr_consumer_lag_records", {"partition": "0"})

    async def script(scene):
        seen = scene.metrics.registry.get_sample_value
        assert seen(*lag) is None
        await until(lambda: seen(*lag) == 7)
        scene.finish(*range(10))
        scene.signals.receive()

    scene = Scene(10, capacity=3)
    play(scene, script)
    assert scene.metrics.registry.get_sample_value(*lag) is None


def test_nothing_is_committed_past_a_record_that_is_not_finished():
    """The second text is stored first; its commit waits for the first one."""

    async def script(scene):
        await until(lambda: len(scene.work.begun) == 3)
        scene.finish(1, 2)
        await some_turns(scene)
        assert scene.committed == 0
        scene.finish(0)
        await until(lambda: scene.committed == 3)
        scene.signals.receive()

    play(Scene(3, consumer=CountingConsumer), script)


def test_a_signal_lets_what_is_in_hand_end_and_begins_nothing_new():
    """What was finished while draining is committed before the group is left."""

    async def script(scene):
        await until(lambda: len(scene.work.begun) == 2)
        scene.signals.receive()
        scene.finish(0)
        await some_turns(scene)
        scene.finish(1)

    scene = Scene(10, capacity=2, consumer=CountingConsumer)
    play(scene, script)
    assert (sorted(scene.work.begun), scene.committed) == ([0, 1], 2)


def test_what_waits_for_a_worker_at_the_signal_is_left_to_another_member():
    """At once; what a worker has is brought to its end, and committed as far as it goes."""

    async def script(scene):
        await until(lambda: len(scene.work.begun) == 4)
        assert scene.metrics.registry.get_sample_value("speech_asr_utterances_waiting") == 2
        scene.signals.receive()
        await until(lambda: sorted(scene.work.cancelled) == [1, 3])
        scene.finish(0, 2)

    scene = Scene(4, capacity=8)
    scene.work.without_worker = {1, 3}
    play(scene, script)
    assert (sorted(scene.work.cancelled), scene.committed) == ([1, 3], 1)


@pytest.mark.parametrize("by", ["second signal", "deadline"])
def test_what_does_not_end_in_time_is_dropped_and_not_committed(by):
    """Another member does it again; what ended before it is committed."""

    async def script(scene):
        await until(lambda: len(scene.work.begun) == 3)
        scene.finish(0, 2)
        scene.signals.receive()
        if by == "second signal":
            scene.signals.receive()

    scene = Scene(3, drain_seconds=5.0 if by == "second signal" else 0.1)
    play(scene, script)
    assert scene.committed == 1


class LosingConsumer(CountingConsumer):
    """Loses its partitions at the poll after `losing` is set; `for_good` if they stay away."""

    losing = False
    for_good = False

    def poll(self, timeout, max_records=16, held=frozenset()):
        if self.losing:
            self.losing = False
            self.revoke()
            if self.for_good:
                self._assigned = frozenset()
        return super().poll(timeout, max_records, held)


def test_what_ends_after_its_partition_was_lost_is_not_committed():
    """The commit would move another member's place, or fail."""

    async def script(scene):
        await until(lambda: len(scene.work.begun) == 3)
        scene.finish(0)
        await until(lambda: scene.committed == 1)
        scene.consumers[0].for_good = scene.consumers[0].losing = True
        await some_turns(scene)
        scene.finish(1, 2)
        await some_turns(scene)
        scene.signals.receive()

    scene = Scene(3, consumer=LosingConsumer)
    play(scene, script)
    assert scene.committed == 1


def test_what_waits_for_a_worker_is_dropped_with_its_partition():
    """Whoever has the partition now recognises it; what a worker has is brought to its end."""

    async def script(scene):
        await until(lambda: len(scene.work.begun) == 4)
        scene.consumers[0].for_good = scene.consumers[0].losing = True
        await until(lambda: len(scene.work.cancelled) == 2)
        await some_turns(scene)
        assert scene.metrics.registry.get_sample_value("speech_asr_utterances_in_hand") == 2
        scene.finish(0, 1)
        scene.signals.receive()

    scene = Scene(4, capacity=8, consumer=LosingConsumer)
    scene.work.without_worker = {2, 3}
    play(scene, script)
    assert sorted(scene.work.cancelled) == [2, 3]


def test_what_is_in_hand_of_a_lost_partition_is_done_again():
    """Whoever takes it over starts at the last commit, and only what is done there counts."""

    async def script(scene):
        await until(lambda: len(scene.work.begun) == 3)
        scene.finish(0)
        await until(lambda: scene.committed == 1)
        scene.consumers[0].losing = True
        await until(lambda: len(scene.work.begun) == 5)
        assert scene.committed == 1
        scene.finish(1, 2)
        await until(lambda: scene.committed == 3)
        scene.signals.receive()

    scene = Scene(3, capacity=8, consumer=LosingConsumer)
    play(scene, script)
    assert sorted(scene.work.begun) == [0, 1, 1, 2, 2]


class BreakingConsumer(FakeConsumer):
    """Can never read again, once it has given its first records."""

    def poll(self, timeout, max_records=16, held=frozenset()):
        found = super().poll(timeout, max_records, held)
        if not found:
            raise BrokerUnavailable("_FATAL")
        return found


def test_a_consumer_that_fails_for_good_is_replaced():
    """What it had in hand is dropped, and read again by the new one."""

    async def script(scene):
        await until(lambda: len(scene.consumers) == 2)
        scene._consumer = FakeConsumer
        scene.finish(0, 1)
        await until(lambda: scene.committed == 2)
        scene.signals.receive()

    scene = Scene(2, consumer=BreakingConsumer)
    play(scene, script)
    assert scene.reports[:3] == [(True, ""), (False, "_FATAL"), (True, "")]


class RefusingConsumer(FakeConsumer):
    """Fails the first two commits."""

    left = 2

    def commit(self, next_offsets):
        if self.left:
            self.left -= 1
            raise BrokerUnavailable("REBALANCE_IN_PROGRESS")
        super().commit(next_offsets)


def test_a_commit_that_fails_is_made_up_for():
    """Even if no other record is finished after it."""

    async def script(scene):
        scene.finish(0)
        await until(lambda: scene.committed == 1)
        scene.signals.receive()

    play(Scene(1, consumer=RefusingConsumer), script)


def test_a_defect_in_the_handling_ends_the_service():
    """Going on would leave the partition uncommitted for good, and nobody would know."""

    async def broken(record, on_begun):
        raise ZeroDivisionError

    scene = Scene(1)
    scene.pipeline._handle = broken
    with pytest.raises(ZeroDivisionError):
        asyncio.run(scene.pipeline.run(scene.signals))
    assert scene.committed == 0
