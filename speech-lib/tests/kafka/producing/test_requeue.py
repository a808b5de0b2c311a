"""What was purged along with an overdue record: handed over once more, or answered in its time."""

import asyncio
import time
from collections.abc import Awaitable, Callable

from speech_lib.errors import DeliveryError
from speech_lib.kafka.producing.requeue import PurgedRecord, Requeue
from speech_lib.kafka.records import Queued, Record, Stored

FAR = 60.0
RECORD = Record("t", b"key", b"value")


def purged_record(seconds: float, *, may_retry: bool = True) -> PurgedRecord:
    future: asyncio.Future[Stored] = asyncio.get_running_loop().create_future()
    return PurgedRecord(RECORD, future, time.monotonic() + seconds, may_retry)


def run(scenario: Callable[[Requeue], Awaitable[object]]) -> object:
    async def within_a_loop() -> object:
        return await scenario(Requeue())

    return asyncio.run(within_a_loop())


def test_it_counts_what_waits():
    """Records and bytes, until they are handed over or answered."""

    async def scenario(requeue):
        seen = [(bool(requeue), requeue.pending.queued())]
        requeue.add(purged_record(FAR))
        seen.append((bool(requeue), requeue.pending.queued()))
        requeue.hand_over(lambda _: True)
        return [*seen, (bool(requeue), requeue.pending.queued())]

    nothing = (False, Queued(0, 0))
    assert run(scenario) == [nothing, (True, Queued(1, 8)), nothing]


def test_a_record_is_handed_over_once_more_only():
    """What was taken back twice stays until its time is up; what is not taken now stays, too."""

    async def scenario(requeue):
        first, second = purged_record(FAR), purged_record(FAR, may_retry=False)
        requeue.add(first)
        requeue.add(second)
        offered = []
        requeue.hand_over(lambda taken: bool(offered.append(taken)))
        requeue.hand_over(lambda taken: not offered.append(taken))
        requeue.hand_over(lambda taken: not offered.append(taken))
        return offered == [first, first], requeue.pending.waiting() == [second.future]

    assert run(scenario) == (True, True)


def test_a_record_whose_time_is_up_is_surely_not_stored():
    """It is with no producer: nothing could send it."""

    async def scenario(requeue):
        late, early = purged_record(0.0), purged_record(FAR)
        requeue.add(late)
        requeue.add(early)
        requeue.expire()
        (error,) = await asyncio.gather(late.future, return_exceptions=True)
        return (
            error.stored,
            error.refused,
            error.reason,
            requeue.pending.waiting() == [early.future],
        )

    assert run(scenario) == ("no", None, "_MSG_TIMED_OUT", True)


def test_closing_answers_everybody():
    """And nothing is kept after that."""

    async def scenario(requeue):
        taken = purged_record(FAR)
        requeue.add(taken)
        requeue.close("_DESTROY")
        requeue.add(purged_record(FAR))
        (error,) = await asyncio.gather(taken.future, return_exceptions=True)
        assert isinstance(error, DeliveryError)
        return error.stored, error.reason, bool(requeue)

    assert run(scenario) == ("no", "_DESTROY", False)
