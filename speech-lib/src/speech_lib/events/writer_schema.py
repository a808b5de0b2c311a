"""Decide whether records of a writer's schema are safe to read. Pure; for `codec`.

With a hostile schema a few bytes can cost hours or all memory: an array of nothing, a type within
itself, a decimal of a million digits, types that hold each other twice or thousands deep. So only
schemas are read whose records cost no more than their bytes. Ours need none of the rest.
"""

from collections.abc import Iterable, Mapping

MAX_SCHEMA_CHARACTERS = 65_536
"""More than forty times ours. The time to parse some schemas grows with the square of this."""
MAX_VALUES = 1_000
"""More than fifty times ours. The values of one record, the record itself included."""
_MAX_DEPTH = 64
_PRIMITIVES = frozenset({"boolean", "int", "long", "float", "double", "bytes", "string"})
_LOGICAL = frozenset({None, "timestamp-millis"})
_TOO_MANY = MAX_VALUES + 1


def is_affordable(schema: object) -> bool:
    """Return whether a record has few values, each value takes a byte, and each byte is read once.

    Args:
        schema: As fastavro parses it: names are full, and defined before they are used.
    """
    return _values(schema, {}, 0) <= MAX_VALUES


def _values(schema: object, known: dict[str, int], depth: int) -> int:
    """Return the most values that one of a type holds; `_TOO_MANY` for what is not affordable.

    `known` holds the count of each named type, `_TOO_MANY` while the type is not complete.
    """
    if depth > _MAX_DEPTH:
        return _TOO_MANY
    match schema:
        case str():
            return 1 if schema in _PRIMITIVES else known.get(schema, _TOO_MANY)
        case list():
            # The number of the branch takes a byte, so "null" is affordable here.
            branches = (1 if each == "null" else _values(each, known, depth + 1) for each in schema)
            return 1 + max(branches, default=_TOO_MANY)
        case {"logicalType": logical} if logical not in _LOGICAL:
            return _TOO_MANY
        case {"type": "record" | "error", "name": str(name), "fields": [_, *_] as fields}:
            known[name] = _TOO_MANY
            known[name] = 1 + _sum(_values(each["type"], known, depth + 1) for each in fields)
            return known[name]
        case {"type": "enum", "name": str(name)}:
            known[name] = 1
            return 1
        case {"type": "fixed", "name": str(name), "size": int(size)}:
            known[name] = 1 if size > 0 else _TOO_MANY
            return known[name]
        case Mapping():
            return 1 if schema.get("type") in _PRIMITIVES else _TOO_MANY
        case _:
            return _TOO_MANY


def _sum(counts: Iterable[int]) -> int:
    """Add up to `_TOO_MANY` at most: types that hold each other twice make endless numbers."""
    total = 0
    for count in counts:
        total = min(total + count, _TOO_MANY)
    return total
