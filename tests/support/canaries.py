"""Find texts and bytes that must not get out, in whatever form they turn up.

The tests of the services' privacy put canaries where something private stands, and search for them
in all that was heard of a service.
"""

import base64
import json
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field
from urllib.parse import quote

Canary = str | bytes


def canary(name: str) -> str:
    """Return a text that is found nowhere by chance, and that survives in a header or a URL."""
    return f"canary-{name}-{secrets.token_hex(8)}"


def forms(canary: Canary) -> set[bytes]:
    """Return the ways in which it may stand in a text: as it is, escaped, as numbers, encoded."""
    secret = canary.encode() if isinstance(canary, str) else canary
    shown = {secret, repr(secret)[2:-1].encode(), repr(list(secret))[1:-1].encode()}
    shown |= {secret.hex(separator).encode() for separator in " :-"} | {secret.hex().encode()}
    shown |= {form.upper() for form in shown if form != secret}
    shown |= {quote(secret).encode(), json.dumps(secret.decode("latin-1"))[1:-1].encode()}
    return shown | _as_base64(secret)


def _as_base64(secret: bytes) -> set[bytes]:
    """Return what is the same whatever was encoded before it and behind it."""
    found = set()
    for before in range(3):
        encoded = base64.b64encode(bytes(before) + secret)
        inner = encoded[-(-before * 4 // 3) : len(encoded) - 4]
        found |= {inner, inner.replace(b"+", b"-").replace(b"/", b"_")}
    return found


@dataclass
class Heard:
    """All that was heard of a service, by where it was heard."""

    parts: dict[str, bytes] = field(default_factory=dict)

    def add(self, where: str, data: bytes) -> None:
        """Keep what was heard."""
        self.parts[where] = self.parts.get(where, b"") + data

    def leaks(self, canaries: Iterable[Canary], but: str = "") -> list[tuple[str, Canary]]:
        """Return where which canary stands, in whatever form; not `but` where it may stand."""
        return [
            (where, each)
            for each in canaries
            for where, data in self.parts.items()
            if where != but and any(form in data for form in forms(each))
        ]
