"""Free workers and waiting utterances find each other, whoever comes first and whoever leaves."""

import asyncio

import pytest
from speech_asr.turns import Turns

pytestmark = pytest.mark.anyio


def with_workers(*workers):
    turns = Turns()
    for worker in workers:
        turns.add(worker)
    return turns


async def waiting(turns, *sources):
    """Return tasks that wait for a worker, in this order, and may have one already."""
    tasks = [asyncio.create_task(turns.get(source, 1.0)) for source in sources]
    await settle()
    return tasks


async def settle():
    for _ in range(3):
        await asyncio.sleep(0)


async def test_an_idle_worker_is_taken_at_once():
    """The one that has been idle for longest."""
    turns = with_workers("one", "two")
    assert [await turns.get("a", 1.0), await turns.get("b", 1.0)] == ["one", "two"]


async def test_the_last_idle_worker_is_kept_for_who_has_none():
    """However much one source wants; whoever comes next need not wait."""
    turns = with_workers(1, 2, 3)
    flood = await waiting(turns, *["flood"] * 4)
    assert [each.done() for each in flood] == [True, True, False, False]
    assert await turns.get("live", 1.0) == 3
    turns.give_back(3, "live")
    await settle()
    assert [each.done() for each in flood] == [True, True, False, False]


async def test_all_but_one_are_busy_while_anything_waits():
    """Whoever else is served, as many work as there are cores."""
    turns = with_workers(1, 2, 3)
    flood = await waiting(turns, *["flood"] * 4)
    await turns.get("live", 1.0)
    turns.give_back(1, "flood")
    await settle()
    assert [each.done() for each in flood] == [True, True, False, False]
    turns.give_back(3, "live")
    await settle()
    assert [each.done() for each in flood] == [True, True, True, False]


async def test_a_worker_goes_to_the_source_that_has_had_least():
    """The first of another comes before the second of the one that came first."""
    turns = Turns()
    first, second, other = await waiting(turns, "a", "a", "b")
    turns.add(1)
    turns.add(2)
    assert [await first, await other] == [1, 2]
    turns.give_back(1, "a")
    assert await second == 1


async def test_who_has_had_a_worker_that_was_idle_has_had_it():
    """What was given without a wait counts too."""
    turns = with_workers("one")
    await turns.get("a", 5.0)
    again, other = await waiting(turns, "a", "b")
    turns.give_back("one", "a")
    assert await other == "one"
    assert not again.done()
    turns.give_back("one", "b")
    await again


@pytest.mark.parametrize("given", [True, False], ids=["just given one", "still waiting"])
async def test_the_worker_of_who_is_cancelled_goes_to_the_next(given):
    """Else there would be one less for good."""
    turns = Turns()
    leaver, next_one = await waiting(turns, "a", "a")
    if given:
        turns.add("worker")
        leaver.cancel()
    else:
        leaver.cancel()
        turns.add("worker")
    assert await next_one == "worker"
    with pytest.raises(asyncio.CancelledError):
        await leaver


async def test_who_was_cancelled_is_not_found_by_a_later_worker():
    """It waits for whoever comes next."""
    turns = Turns()
    (leaver,) = await waiting(turns, "a")
    leaver.cancel()
    await asyncio.wait([leaver])
    turns.add("worker")
    assert await turns.get("a", 1.0) == "worker"
