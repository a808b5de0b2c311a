"""Whose turn it is: shares by cost, no credit for the past, nobody starved, nothing kept."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st
from speech_asr.fair import FairQueue


def queue(*items, most_sources=64):
    """Return a queue of (source, cost) items; each is named by its source and number."""
    new = FairQueue(most_sources)
    for number, (source, cost) in enumerate(items):
        new.put(source, cost, f"{source}{number}")
    return new


def take_all(fair):
    return [fair.take() for _ in range(len(fair))]


def test_one_source_is_served_in_its_order():
    """However long each utterance is."""
    assert take_all(queue(("a", 9), ("a", 1), ("a", 5))) == ["a0", "a1", "a2"]


def test_whoever_comes_after_a_burst_of_another_is_next():
    """What one source has sent before does not stand in front of it."""
    fair = queue(*[("flood", 49)] * 10)
    assert fair.take() == "flood0"
    fair.put("live", 3, "live")
    assert fair.take() == "live"


def test_whoever_comes_again_and_again_is_next_each_time():
    """A short utterance of one against each long one of the other."""
    fair = queue(*[("flood", 49)] * 5)
    served = []
    for number in range(4):
        served.append(fair.take())
        fair.put("live", 3, f"live{number}")
        served.append(fair.take())
    assert served == [f"{who}{number}" for number in range(4) for who in ("flood", "live")]


def test_shares_are_of_cost_and_not_of_number():
    """Ten short ones for each long one."""
    fair = queue(*[("long", 10)] * 5, *[("short", 1)] * 50)
    first = Counter(fair.take().rstrip("0123456789") for _ in range(22))
    assert first == {"long": 2, "short": 20}


def test_a_source_that_was_idle_has_no_credit():
    """It does not keep the others away for as long as it said nothing."""
    fair = queue(*[("busy", 1)] * 100)
    fair.put("other", 1, "before")
    for _ in range(51):
        fair.take()
    for number in range(10):
        fair.put("other", 1, f"other{number}")
    assert Counter(fair.take().rstrip("0123456789") for _ in range(20)) == {"busy": 10, "other": 10}


def test_a_source_that_has_had_more_than_its_share_pays_after_a_moment_of_silence():
    """Whoever sends one at a time gains nothing against those whose utterances wait."""
    fair = queue(("greedy", 10), ("patient", 10), ("patient", 10))
    assert [fair.take(), fair.take()] == ["greedy0", "patient1"]
    fair.put("greedy", 10, "again")
    fair.put("new", 10, "new")
    assert take_all(fair) == ["new", "again", "patient2"]


def test_no_number_of_new_sources_starves_an_old_one():
    """Each new one begins where time stands, and time goes on."""
    fair = queue(("old", 4), most_sources=8)
    assert fair.take() == "old0"
    fair.put("old", 4, "old")
    waited = 0
    for number in range(100):
        fair.put(f"new{number}", 4, f"new{number}")
        if fair.take() == "old":
            break
        waited += 1
    assert waited <= 8


def test_what_need_not_be_served_is_left_out():
    """The others of its source keep their order; who does not wait is not found."""
    fair = queue(("a", 1), ("a", 1), ("b", 1))
    assert [fair.discard("a0"), fair.discard("a0"), fair.discard("c")] == [True, False, False]
    assert sorted(take_all(fair)) == ["a1", "b2"]


def test_where_nothing_waits_nothing_can_be_taken():
    """Also where sources are still known."""
    fair = queue(("a", 1))
    assert [fair.take(), fair.take(), len(fair)] == ["a0", None, 0]


def test_sources_can_be_passed_over():
    """They are next as soon as they are not."""
    fair = queue(("a", 1), ("b", 5), ("b", 5))
    taken = [fair.take({"a"}), fair.take({"a", "b"}), fair.take({"a"}), fair.take()]
    assert taken == ["b1", None, "b2", "a0"]


def test_sources_are_forgotten():
    """Whoever makes up a new one for each utterance fills no memory."""
    fair: FairQueue[str] = FairQueue(8)
    most = 0
    for number in range(1_000):
        fair.put(f"s{number}", 1, f"s{number}")
        fair.take()
        most = max(most, fair.remembered)
    assert most <= 9


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.integers(1, 50)), min_size=1, max_size=60))
def test_sources_that_wait_all_the_time_are_served_alike(items):
    """Of two that both have something left, none is ahead by more than the longest of each."""
    fair = queue(*items)
    cost = {f"{source}{number}": price for number, (source, price) in enumerate(items)}
    left = Counter(source for source, _ in items)
    longest = {source: max(price for of, price in items if of == source) for source in left}
    served = Counter()
    while len(fair):
        item = fair.take()
        served[item[0]] += cost[item]
        left[item[0]] -= 1
        waiting = [source for source in left if left[source]]
        for one in waiting:
            for other in waiting:
                assert served[one] - served[other] <= longest[one] + longest[other]
