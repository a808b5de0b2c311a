"""A bound on how many connections are held, which no single address can use up against the others.

Pure. The operations port holds its connections by it, and the gateway the handshakes that have not
finished. Whoever comes next always gets a place. Over a limit, the address that holds most loses
its oldest. So a client with one connection is never displaced by an address that has two.
"""

import ipaddress
import math
from collections import Counter
from collections.abc import Hashable, Iterator
from functools import lru_cache
from typing import Generic, TypeVar

_IPV6_PREFIX = 64

HolderT = TypeVar("HolderT", bound=Hashable)


class Places(Generic[HolderT]):
    """At most `limit` holders in all, and `limit_each` of one address."""

    def __init__(self, limit: int, limit_each: float = math.inf) -> None:
        self._limit = limit
        self._limit_each = limit_each
        self._held: dict[HolderT, str] = {}  # in the order in which they came
        self._counts: Counter[str] = Counter()

    def __len__(self) -> int:
        """Return how many places are taken."""
        return len(self._held)

    def __iter__(self) -> Iterator[HolderT]:
        """Yield who holds one, whatever happens to them meanwhile."""
        return iter(tuple(self._held))

    def take(self, holder: HolderT, address: str) -> HolderT | None:
        """Give `holder` a place; return who has lost one for it, whom the caller must cut.

        Args:
            holder: Whoever gives the place back by `leave`.
            address: Where it comes from; addresses of IPv6 count by /64.
        """
        network = network_of(address)
        self._held[holder] = network
        self._counts[network] += 1
        if len(self._held) <= self._limit and self._counts[network] <= self._limit_each:
            return None
        most = max(self._counts.values())
        lost = next(each for each, network in self._held.items() if self._counts[network] == most)
        self.leave(lost)
        return lost

    def leave(self, holder: HolderT) -> None:
        """Give the place back; twice, or after it was lost, does no harm."""
        network = self._held.pop(holder, None)
        if network is None:
            return
        self._counts[network] -= 1
        if not self._counts[network]:
            del self._counts[network]


def address_of(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Return an address, or None where the text is none."""
    try:
        # The sender chooses the zone (fe80::1%eth0), so it could make one client look like many.
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return None
    # ::ffff:10.0.0.1 and 10.0.0.1 are one client to a socket that listens on both.
    return getattr(found, "ipv4_mapped", None) or found


@lru_cache(maxsize=1024)  # parsing an address would be a tenth of what a short session costs
def network_of(address: str) -> str:
    """Return what counts as one address: an IPv4 address, or the /64 of an IPv6 one."""
    match address_of(address):
        case None:  # no address is known of a client that has gone already
            return address
        case ipaddress.IPv6Address() as found:
            return str(ipaddress.ip_network((found, _IPV6_PREFIX), strict=False))
        case found:
            return str(found)
