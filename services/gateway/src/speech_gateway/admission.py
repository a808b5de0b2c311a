"""Who may come in: an exact count of connections, in all and by address, and of handshakes.

Pure bookkeeping on the event loop's thread, used by the server. An address is what `client_address`
returns: of IPv6 the /64, because one client has all of it. The server takes a slot just before it
sends the 101. The slot is free when the transport is closed and the utterance's memory is free.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from itertools import count
from typing import Protocol

from speech_lib.kafka.headers import SOURCE_BYTES
from speech_lib.service.places import Places, address_of, network_of

from speech_gateway.handshake import Refusal
from speech_gateway.rates import AddressBuckets

_MAX_HOPS = 16
"""How many proxies of a chain are read: 16 KiB of trusted addresses would take 0.1 s."""

Networks = tuple[IPv4Network | IPv6Network, ...]


class Slot:
    """One admitted connection. It is free once everything that holds it has let go."""

    def __init__(self, admission: Admission, address: str) -> None:
        self._admission = admission
        self.address = address
        self._holders = 1  # the transport

    @property
    def free(self) -> bool:
        """Whether the slot has been given back."""
        return self._holders == 0

    def hold(self) -> None:
        """Keep the slot for one more reason; each `hold` needs a `release`."""
        self._holders += 1

    def release(self) -> None:
        """Drop one reason; the last one frees the slot."""
        self._holders -= 1
        if self._holders == 0:
            self._admission._give_back(self)  # noqa: SLF001 - the two are one piece


@dataclass
class Admission:
    """Counts live connections against `limit` and `limit_per_address`; never over either.

    An address may open `sessions_per_second` of them, and as many again in a burst.
    """

    limit: int
    limit_per_address: int
    sessions_per_second: int = 20
    draining: bool = False
    live: int = 0
    on_release: Callable[[], None] = lambda: None
    """Called each time a slot is given back."""
    _by_address: Counter[str] = field(default_factory=Counter)
    _opened: AddressBuckets = field(init=False, compare=False)

    def __post_init__(self) -> None:
        self._opened = AddressBuckets(self.sessions_per_second, self.sessions_per_second)

    def admit(self, address: str, now: float, *, ready: bool) -> Slot | Refusal:
        """Take a slot for `address`, or return why not.

        Args:
            address: The client's, as `client_address` returns it.
            now: The time, on any clock in seconds that does not run backwards.
            ready: Whether the gateway can store audio.
        """
        if self.draining:
            return Refusal.DRAINING
        if not ready:
            return Refusal.NOT_READY
        if self.live >= self.limit:
            return Refusal.AT_CAPACITY
        if self._by_address[address] >= self.limit_per_address:
            return Refusal.TOO_MANY_FROM_ADDRESS
        if not self._opened.take(address, now):
            return Refusal.TOO_MANY_FROM_ADDRESS
        self.live += 1
        self._by_address[address] += 1
        return Slot(self, address)

    def _give_back(self, slot: Slot) -> None:
        self.live -= 1
        self._by_address[slot.address] -= 1
        if not self._by_address[slot.address]:
            del self._by_address[slot.address]  # so that the counter does not grow with the world
        self.on_release()


class Abortable(Hashable, Protocol):
    """A connection whose handshake may be aborted."""

    def abort(self) -> None:
        """Close the transport at once."""


class UnfinishedHandshakes:
    """Bounds the handshakes that have not finished, in all and by address.

    Over either bound, the address that holds most loses its oldest, which is aborted. So a client
    that opens connections without end aborts its own. One with a long round trip keeps its time.
    """

    def __init__(
        self, trusted: Networks = (), *, limit: int = 100, limit_per_address: int = 20
    ) -> None:
        """Begin with none.

        Args:
            trusted: The proxies' networks. The clients behind a proxy cannot be told apart before
                their heads are there, so each of its connections counts as an address of its own.
            limit: Handshakes at once.
            limit_per_address: Handshakes at once from one address.
        """
        self._trusted = trusted
        self._places: Places[Abortable] = Places(limit, limit_per_address)
        self._closed = False
        self._numbers = count()

    def __len__(self) -> int:
        return len(self._places)

    def begin(self, connection: Abortable, peer: str) -> None:
        """Count a new connection from the address `peer`."""
        if self._closed:
            connection.abort()
            return
        displaced = self._places.take(connection, self._counted(peer))
        if displaced is not None:
            displaced.abort()

    def end(self, connection: Abortable) -> None:
        """Stop counting a handshake that has finished or failed; twice does no harm."""
        self._places.leave(connection)

    def abort_all(self) -> None:
        """Abort every handshake that has not finished, and each that begins from now on."""
        self._closed = True
        for connection in self._places:
            self._places.leave(connection)
            connection.abort()

    def _counted(self, peer: str) -> str:
        address = address_of(peer) if self._trusted else None
        if address is not None and _is_trusted(address, self._trusted):
            return f"proxied {next(self._numbers)}"
        return peer


class Sources:
    """Names for addresses that tell two of them apart, and nothing else.

    With a key that is random, and kept nowhere but here, nobody turns a name back into an address,
    not even by trying all addresses; and each has another name when the process has ended.
    """

    def __init__(self, key: bytes) -> None:
        """Take the key, of at most 64 bytes."""
        self._key = key

    def name(self, address: str) -> str:
        """Return the name of an address, as `client_address` finds it."""
        return blake2b(address.encode(), key=self._key, digest_size=SOURCE_BYTES).hexdigest()


def client_address(peer: str, forwarded_for: Sequence[str], trusted: Networks) -> str:
    """Return the address to count a client by; of IPv6 its /64 (`network_of`).

    Reads X-Forwarded-For from its end, where the nearest proxy wrote, and stops at the first
    address that is not a trusted proxy's. Without trusted proxies it ignores the header, because
    anybody can write it. An entry that is no address ends the search: nobody vouches for what
    stands before it.

    Args:
        peer: The address of the TCP connection.
        forwarded_for: All values of the X-Forwarded-For header, in order.
        trusted: The proxies' networks (`TRUSTED_PROXIES`).
    """
    address = address_of(peer) if trusted else None
    if address is None:
        return network_of(peer)
    hops = [hop.strip() for value in forwarded_for for hop in value.split(",")][-_MAX_HOPS:]
    while hops and _is_trusted(address, trusted):
        hop = address_of(hops.pop())
        if hop is None:
            break
        address = hop
    return network_of(str(address))


def _is_trusted(address: IPv4Address | IPv6Address, trusted: Networks) -> bool:
    return any(address in network for network in trusted)
