"""Slots, unfinished handshakes, and the address by which a client is counted."""

from ipaddress import ip_network

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from speech_gateway.admission import Admission, Slot, Sources, UnfinishedHandshakes, client_address
from speech_gateway.handshake import Refusal


def slots(admission: Admission, *addresses: str) -> list[Slot]:
    """Take a slot for each address; all must be admitted."""
    taken = [admission.admit(address, 0.0, ready=True) for address in addresses]
    assert all(isinstance(slot, Slot) for slot in taken)
    return taken


def test_no_more_than_the_limit_come_in_and_each_that_leaves_makes_room() -> None:
    """The count is exact."""
    admission = Admission(limit=2, limit_per_address=2)
    first, second = slots(admission, "a", "b")
    assert admission.admit("c", 0.0, ready=True) is Refusal.AT_CAPACITY
    first.release()
    slots(admission, "c")
    assert admission.admit("d", 0.0, ready=True) is Refusal.AT_CAPACITY
    assert (admission.live, first.free, second.free) == (2, True, False)


def test_no_more_than_its_share_come_from_one_address() -> None:
    """Others still come in, and the share is given back with the slot."""
    admission = Admission(limit=10, limit_per_address=2)
    first, _second, _other = slots(admission, "a", "a", "b")
    assert admission.admit("a", 0.0, ready=True) is Refusal.TOO_MANY_FROM_ADDRESS
    assert admission.live == 3
    first.release()
    slots(admission, "a")
    assert admission.admit("a", 0.0, ready=True) is Refusal.TOO_MANY_FROM_ADDRESS


def test_no_more_than_its_rate_come_from_one_address() -> None:
    """A burst of a second's worth, then what the rate earns; a refusal costs nothing."""
    admission = Admission(limit=100, limit_per_address=100, sessions_per_second=2)

    def admitted(address: str, now: float, times: int) -> int:
        verdicts = [admission.admit(address, now, ready=True) for _ in range(times)]
        assert {*verdicts[::-1]} - {Refusal.TOO_MANY_FROM_ADDRESS} == {
            slot for slot in verdicts if isinstance(slot, Slot)
        }
        return sum(isinstance(verdict, Slot) for verdict in verdicts)

    assert [admitted("a", 10.0, 5), admitted("b", 10.0, 5)] == [2, 2]
    assert [admitted("a", 10.4, 5), admitted("a", 10.5, 5), admitted("a", 20.0, 5)] == [0, 1, 2]


def test_a_refusal_for_another_reason_costs_nothing_of_the_rate() -> None:
    """Whoever waits for a slot may have it when there is one."""
    admission = Admission(limit=1, limit_per_address=1, sessions_per_second=2)
    (slot,) = slots(admission, "a")
    assert [admission.admit("b", 0.0, ready=True) for _ in range(5)] == [Refusal.AT_CAPACITY] * 5
    slot.release()
    slots(admission, "b")


def test_addresses_that_have_rested_are_forgotten() -> None:
    """What is kept of an address is gone when its rate has earned all again."""
    admission = Admission(limit=10_000, limit_per_address=1, sessions_per_second=20)
    for number in range(1000):
        admission.admit(f"client-{number}", number / 100, ready=True)
    assert len(admission._opened) <= 20


def test_of_several_reasons_the_first_is_the_answer() -> None:
    """Draining, not ready, at capacity, too many from the address: in this order."""
    admission = Admission(limit=1, limit_per_address=1, draining=True)
    admission.draining = False
    slots(admission, "a")
    admission.draining = True
    verdicts = [admission.admit("a", 0.0, ready=False)]
    admission.draining = False
    verdicts.append(admission.admit("a", 0.0, ready=False))
    verdicts.append(admission.admit("a", 0.0, ready=True))
    admission.limit = 2
    verdicts.append(admission.admit("a", 0.0, ready=True))
    assert verdicts == [
        Refusal.DRAINING,
        Refusal.NOT_READY,
        Refusal.AT_CAPACITY,
        Refusal.TOO_MANY_FROM_ADDRESS,
    ]
    assert admission.live == 1


def test_a_slot_is_free_when_the_last_that_holds_it_lets_go() -> None:
    """A gone client's audio that still waits for the broker keeps the slot."""
    told: list[int] = []
    admission = Admission(limit=1, limit_per_address=1)
    admission.on_release = lambda: told.append(admission.live)
    (slot,) = slots(admission, "a")
    slot.hold()
    slot.release()
    assert (slot.free, admission.live, told) == (False, 1, [])
    assert admission.admit("b", 0.0, ready=True) is Refusal.AT_CAPACITY
    slot.release()
    assert (slot.free, admission.live, told) == (True, 0, [0])


def test_nothing_is_remembered_of_addresses_that_have_gone() -> None:
    """A refusal and a visit leave no trace, or the gateway would grow with the world."""
    admission = Admission(limit=1, limit_per_address=1)
    (slot,) = slots(admission, "a")
    admission.admit("b", 0.0, ready=True)
    slot.release()
    admission.limit_per_address = 0
    admission.admit("c", 0.0, ready=True)
    assert (admission.live, dict(admission._by_address)) == (0, {})


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 3)), max_size=60),
    st.integers(1, 4),
    st.integers(1, 4),
)
def test_no_storm_exceeds_a_limit_or_leaks_a_slot(moves, limit: int, share: int) -> None:
    """Random comings and goings; at the end every slot is back."""
    admission = Admission(limit, share)
    live: list[Slot] = []
    for address, move in moves:
        if move == 0 and live:
            live.pop(0).release()
        else:
            slot = admission.admit(address, 0.0, ready=True)
            live += [slot] if isinstance(slot, Slot) else []
        by_address = [sum(slot.address == name for slot in live) for name in "abc"]
        assert admission.live == len(live) <= limit
        assert max(by_address) <= share
    for slot in live:
        slot.release()
    assert (admission.live, dict(admission._by_address)) == (0, {})


class Connection:
    """A connection that can be aborted, and tells the handshakes when it is."""

    def __init__(self, name: str, handshakes: UnfinishedHandshakes, aborted: list[str]) -> None:
        self.name, self._handshakes, self._aborted = name, handshakes, aborted

    def abort(self) -> None:
        self._aborted.append(self.name)
        self._handshakes.end(self)


def begun(handshakes: UnfinishedHandshakes, aborted: list[str], *peers: str) -> list[Connection]:
    """Begin a handshake from each of these addresses; they are named 0, 1, 2, …."""
    connections = []
    for number, peer in enumerate(peers):
        connections.append(Connection(str(number), handshakes, aborted))
        handshakes.begin(connections[-1], peer)
    return connections


def test_over_the_limit_the_oldest_unfinished_handshake_is_aborted() -> None:
    """Those that have finished do not count, and finishing twice does no harm."""
    aborted: list[str] = []
    handshakes = UnfinishedHandshakes(limit=2)
    a, b, c, d = (Connection(name, handshakes, aborted) for name in "abcd")
    handshakes.begin(a, "192.0.2.1")
    handshakes.begin(b, "192.0.2.2")
    handshakes.end(a)
    handshakes.end(a)
    handshakes.begin(c, "192.0.2.3")
    assert (aborted, len(handshakes)) == ([], 2)
    handshakes.begin(d, "192.0.2.4")
    assert (aborted, len(handshakes)) == (["b"], 2)


def test_a_hundred_unfinished_handshakes_are_the_default() -> None:
    """The hundred and first costs the first its place."""
    aborted: list[str] = []
    handshakes = UnfinishedHandshakes()
    begun(handshakes, aborted, *(f"192.0.2.{number}" for number in range(100)))
    assert (aborted, len(handshakes)) == ([], 100)
    handshakes.begin(Connection("another", handshakes, aborted), "192.0.2.200")
    assert (aborted, len(handshakes)) == (["0"], 100)


def test_an_address_that_begins_more_than_twenty_aborts_its_own_oldest() -> None:
    """A client that came before it, with a long round trip, keeps its time."""
    aborted: list[str] = []
    handshakes = UnfinishedHandshakes()
    begun(handshakes, aborted, "192.0.2.1", *["192.0.2.2"] * 20)
    assert (aborted, len(handshakes)) == ([], 21)
    handshakes.begin(Connection("another", handshakes, aborted), "192.0.2.2")
    assert (aborted, len(handshakes)) == (["1"], 21)


def test_over_the_limit_the_address_that_holds_most_pays() -> None:
    """Not whoever is oldest, nor whoever comes."""
    aborted: list[str] = []
    handshakes = UnfinishedHandshakes(limit=6, limit_per_address=4)
    begun(handshakes, aborted, *"abbccc", "d")
    assert (aborted, len(handshakes)) == (["3"], 6)
    handshakes.begin(Connection("another", handshakes, aborted), "d")
    assert (aborted, len(handshakes)) == (["3", "1"], 6)


def test_addresses_of_one_ipv6_client_begin_handshakes_together() -> None:
    """Whoever has one address of a /64 has all of them."""
    aborted: list[str] = []
    handshakes = UnfinishedHandshakes(limit_per_address=2)
    begun(handshakes, aborted, "2001:db8:0:1::1", "2001:db8:0:1:ffff::", "2001:db8:0:1::2")
    assert aborted == ["0"]
    handshakes.begin(Connection("neighbour", handshakes, aborted), "2001:db8:0:2::1")
    assert (aborted, len(handshakes)) == (["0"], 3)


def test_handshakes_through_a_trusted_proxy_count_one_by_one() -> None:
    """Who is behind it is not known yet; a burst of its clients is not one that floods."""
    aborted: list[str] = []
    handshakes = UnfinishedHandshakes(PROXIES, limit=25)
    begun(handshakes, aborted, *["10.0.0.1"] * 21, *["192.0.2.1"] * 4)
    assert (aborted, len(handshakes)) == ([], 25)
    handshakes.begin(Connection("another", handshakes, aborted), "10.0.0.1")
    assert (aborted, len(handshakes)) == (["21"], 25)


def test_nothing_is_remembered_of_handshakes_that_have_ended() -> None:
    """Or the gateway would grow with the world."""
    handshakes = UnfinishedHandshakes()
    for connection in begun(handshakes, [], "192.0.2.1", "192.0.2.1", "2001:db8::1"):
        handshakes.end(connection)
    assert list(handshakes._places) == []


def test_every_unfinished_handshake_is_aborted_at_the_end() -> None:
    """None is left, also where aborting tells of the end at once; each that comes then, too."""
    aborted: list[str] = []
    handshakes = UnfinishedHandshakes()
    begun(handshakes, aborted, "192.0.2.1", "192.0.2.2")
    handshakes.abort_all()
    assert (sorted(aborted), len(handshakes)) == (["0", "1"], 0)
    handshakes.begin(Connection("late", handshakes, aborted), "192.0.2.3")
    assert (aborted[-1], len(handshakes)) == ("late", 0)


PROXIES = (ip_network("10.0.0.0/8"), ip_network("fd00::/8"))


@pytest.mark.parametrize(
    ("peer", "forwarded_for", "address"),
    [
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", ["203.0.113.7"], "203.0.113.7"),
        ("203.0.113.9", ["203.0.113.7"], "203.0.113.9"),
        ("10.0.0.1", ["1.2.3.4, 203.0.113.7"], "203.0.113.7"),
        ("10.0.0.1", ["1.2.3.4", "203.0.113.7"], "203.0.113.7"),
        ("10.0.0.1", ["203.0.113.7,10.0.0.2 , 10.0.0.3"], "203.0.113.7"),
        ("10.0.0.1", ["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
        ("10.0.0.1", ["203.0.113.7, unknown"], "10.0.0.1"),
        ("10.0.0.1", ["203.0.113.7, unknown, 10.0.0.2"], "10.0.0.2"),
        ("10.0.0.1", ["203.0.113.7,"], "10.0.0.1"),
        ("fd00::1", ["2001:db8::7"], "2001:db8::/64"),
        ("fd00::1", ["2001:db8::7, fd00::2"], "2001:db8::/64"),
        ("2001:db8:1:2:3:4:5:6", [], "2001:db8:1:2::/64"),
        ("fd00::1", [], "fd00::/64"),
        ("::ffff:10.0.0.1", ["::ffff:203.0.113.7"], "203.0.113.7"),
        ("10.0.0.1", ["2001:DB8:0::7"], "2001:db8::/64"),
        ("10.0.0.1", ["fe80::7%anything"], "fe80::/64"),
        ("", ["203.0.113.7"], ""),
        ("@socket", ["203.0.113.7"], "@socket"),
    ],
)
def test_a_client_is_counted_by_the_nearest_address_that_is_no_trusted_proxy(
    peer: str, forwarded_for: list[str], address: str
) -> None:
    """From the end, where the nearest proxy wrote, as far as trust reaches and not beyond."""
    assert client_address(peer, forwarded_for, PROXIES) == address


def test_no_more_than_sixteen_hops_are_looked_at() -> None:
    """A header full of addresses that are trusted would hold the loop."""
    proxies = [f"10.0.0.{number}" for number in range(2, 18)]
    assert client_address("10.0.0.1", ["203.0.113.7", *proxies[1:]], PROXIES) == "203.0.113.7"
    assert client_address("10.0.0.1", ["203.0.113.7", *proxies], PROXIES) == "10.0.0.2"


@pytest.mark.parametrize(
    ("peer", "address"),
    [("10.0.0.1", "10.0.0.1"), ("::ffff:10.0.0.1", "10.0.0.1"), ("::1", "::/64")],
)
def test_without_trusted_proxies_the_header_is_ignored(peer: str, address: str) -> None:
    """Anybody can write it; and one client has one name on either kind of socket."""
    assert client_address(peer, ["203.0.113.7"], ()) == address


def test_a_name_of_a_source_tells_addresses_apart_and_nothing_else() -> None:
    """It is the same for the same address, and another one with another key, as after a restart."""
    one, next_process = Sources(b"one"), Sources(b"another")
    names = {
        each.name(address)
        for each in (one, one, next_process)
        for address in ("192.0.2.1", "192.0.2.2")
    }
    assert len(names) == 4
    assert {len(name) for name in names} == {16}
