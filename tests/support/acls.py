"""The rights at Kafka that docs/security.md gives to each user."""

import re

from support.checkout import ROOT

_DOCUMENT = ROOT / "docs" / "security.md"
_ROW = re.compile(r"^\| `(\w+)` \| (topic|group) \| `([\w.-]+)` \| (.+) \|$", re.MULTILINE)
_OPERATION = re.compile(r"`([A-Z_]+)`")


def acls(name: str = "acls") -> list[tuple[str, str, str, str]]:
    """Return a table of the document: user, kind of resource, its name, operation."""
    table = _DOCUMENT.read_text().partition(f"<!-- {name} -->")[2].partition("<!-- end -->")[0]
    rows = _ROW.findall(table)
    return [(*row[:3], operation) for row in rows for operation in _OPERATION.findall(row[3])]
