"""Who gets a place where there are few."""

import pytest
from speech_lib.service.places import Places, network_of


def test_places_are_exact_and_come_back() -> None:
    """Nobody loses one as long as there are some; who leaves makes room, once."""
    places: Places[int] = Places(2)
    assert [places.take(1, "10.0.0.1"), places.take(2, "10.0.0.2")] == [None, None]
    places.leave(1)
    places.leave(1)
    assert (places.take(3, "10.0.0.1"), len(places)) == (None, 2)


def test_the_address_that_holds_most_loses_its_oldest() -> None:
    """Others keep theirs, however old, and whoever comes next gets in."""
    places: Places[int] = Places(4)
    for number, address in enumerate(("honest", "other", "flood", "flood")):
        places.take(number, address)
    assert [places.take(number, "flood") for number in range(4, 8)] == [2, 3, 4, 5]
    assert places.take(8, "another") == 6
    assert len(places) == 4


def test_an_address_over_its_own_limit_loses_its_oldest() -> None:
    """Although there are places left for all others."""
    places: Places[int] = Places(10, limit_each=2)
    for number, address in enumerate(("honest", "flood", "flood")):
        places.take(number, address)
    assert [places.take(3, "flood"), places.take(4, "flood"), places.take(5, "honest")] == [
        1,
        2,
        None,
    ]
    assert len(places) == 4


def test_of_addresses_that_hold_as_many_the_oldest_goes() -> None:
    """Also where that is as good as any."""
    places: Places[str] = Places(2)
    assert [places.take(name, name) for name in "abc"] == [None, None, "a"]


def test_nothing_is_remembered_of_those_that_have_left() -> None:
    """Or the count would grow with the world."""
    places: Places[int] = Places(2)
    for number in range(4):
        places.take(number, f"192.0.2.{number}")
    for number in range(4):
        places.leave(number)
    assert (list(places), dict(places._counts)) == ([], {})


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8::1", "2001:db8::/64"),
        ("2001:db8::ffff:1", "2001:db8::/64"),
        ("2001:db8:0:1::1", "2001:db8:0:1::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
    ],
)
def test_what_counts_as_one_address(address: str, network: str) -> None:
    """Whoever has one address of IPv6 has all of its /64."""
    assert network_of(address) == network
