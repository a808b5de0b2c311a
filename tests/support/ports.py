"""Ports of the loopback that nobody listens on, for what must be told its port before it starts.

Used by the tests that start containers, and by `scripts/with-kafka`, which runs it: only the
standard library is needed. Below the range from which systems take the ports of outgoing
connections (Linux from 32768, others from 49152): one of those may be taken before it is used.
"""

import random
import socket
import sys
from collections.abc import Sequence
from contextlib import ExitStack, suppress

_LOWEST, _HIGHEST = 20_000, 32_000


def free_ports(names: Sequence[str]) -> dict[str, int]:
    """Return a port of its own for each name."""
    ports: list[int] = []
    with ExitStack() as held:
        while len(ports) < len(names):
            port = random.randint(_LOWEST, _HIGHEST)  # noqa: S311 - no secret
            one = held.enter_context(socket.socket())
            with suppress(OSError):
                one.bind(("127.0.0.1", port))
                ports.append(port)
    return dict(zip(names, ports, strict=True))


def port_ranges(*names: str) -> dict[str, str]:
    """Return a range of host ports for each: a developer's stack publishes one for each replica."""
    base = random.randrange(_LOWEST, _HIGHEST, 100)  # noqa: S311 - no secret
    return {name: f"{base + 20 * at}-{base + 20 * at + 19}" for at, name in enumerate(names)}


if __name__ == "__main__":
    print(*free_ports(sys.argv[1:]).values())  # noqa: T201 - for scripts/with-kafka
