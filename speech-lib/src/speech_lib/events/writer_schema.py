"""Whether a writer's schema is one that can be read for no more than its bytes. Pure; for `codec`.

Whoever may register a schema can otherwise have a few bytes cost hours or all memory: an array of
nothing, a type within itself, a decimal of a million digits, types that hold each other twice or
thousands deep. Ours need none of that.
"""

from collections.abc import Iterable, Mapping

MAX_SCHEMA_CHARACTERS = 65_536
"""More than forty times ours: with the square of its length some schemas take time to parse."""
MAX_VALUES = 1_000
"""More than fifty times ours: so many values a record, its own included, and none within itself."""
_MAX_DEPTH = 64
_PRIMITIVES = frozenset({"boolean", "int", "long", "float", "double", "bytes", "string"})
_LOGICAL = frozenset({None, "timestamp-millis"})
_TOO_MANY = MAX_VALUES + 1


def is_affordable(schema: object) -> bool:
    """Tell whether a record has few values, each value takes a byte, and each byte is read once.

    Args:
        schema: As fastavro has parsed it: names are full, and are defined before they are used.
    """
    return _values(schema, {}, 0) <= MAX_VALUES


def _values(schema: object, known: dict[str, int], depth: int) -> int:
    """Return how many values one of a type holds at most; `_TOO_MANY` for what is not affordable.

    `known` has that of the named types, `_TOO_MANY` for those that are not whole yet.
    """
    if depth > _MAX_DEPTH:
        return _TOO_MANY
    match schema:
        case str():
            return 1 if schema in _PRIMITIVES else known.get(schema, _TOO_MANY)
        case list():
            # The number of the branch takes a byte, so here nothing may be nothing.
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
    """Add up no further than needed: types that hold each other twice make numbers without end."""
    total = 0
    for count in counts:
        total = min(total + count, _TOO_MANY)
    return total
