"""Injure connections that go through Toxiproxy, by its HTTP API.

Only the direction from the broker to its client is injured, so requests arrive, are obeyed, and
their answers are lost. See https://github.com/Shopify/toxiproxy#toxics.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.request import Request, urlopen

TIMEOUT_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Toxiproxy:
    """A Toxiproxy, by the address of its API, `http://HOST:PORT`."""

    url: str

    @contextmanager
    def answers_reset(self, *proxies: str) -> Iterator[None]:
        """Reset each connection, old or new, when an answer comes, in place of the answer."""
        with self._toxic(proxies, "reset_peer", timeout=0):
            yield

    @contextmanager
    def answers_swallowed(self, *proxies: str) -> Iterator[None]:
        """Let no answer through, and keep the connections open: a black hole."""
        with self._toxic(proxies, "timeout", timeout=0):
            yield

    @contextmanager
    def answers_delayed(self, seconds: float, *proxies: str) -> Iterator[None]:
        """Hold each answer back for a while."""
        with self._toxic(proxies, "latency", latency=round(seconds * 1000)):
            yield

    @contextmanager
    def _toxic(self, proxies: tuple[str, ...], kind: str, **attributes: int) -> Iterator[None]:
        toxic = {"name": kind, "type": kind, "stream": "downstream", "attributes": attributes}
        added: list[str] = []
        try:
            for proxy in proxies:
                self._ask("POST", f"/proxies/{proxy}/toxics", toxic)
                added.append(proxy)
            yield
        finally:
            for proxy in added:
                self._ask("DELETE", f"/proxies/{proxy}/toxics/{kind}")

    def _ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> None:
        request = Request(  # noqa: S310 - the proxy's own address
            self.url + path, json.dumps(body).encode() if body else None, method=method
        )
        with urlopen(request, timeout=TIMEOUT_SECONDS):  # noqa: S310
            pass
