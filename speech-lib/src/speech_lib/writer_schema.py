"""Whether a writer's schema is one that can be read for no more than its bytes. Pure; for `codec`.

Whoever may register a schema can otherwise have a few bytes cost hours or all memory: an array of
nothing, a type within itself, a decimal of a million digits. Ours need none of that.
"""

from collections.abc import Mapping

_PRIMITIVES = frozenset({"boolean", "int", "long", "float", "double", "bytes", "string"})
_LOGICAL = frozenset({None, "timestamp-millis"})


def is_affordable(schema: object) -> bool:
    """Tell whether each value of a schema takes a byte at least, and each byte is read once.

    Args:
        schema: As fastavro has parsed it: names are full, and are defined before they are used.
    """
    return _affordable(schema, {})


def _affordable(schema: object, known: dict[str, bool]) -> bool:
    """Tell of a schema; `known` holds the named types, false for those that are not whole yet."""
    match schema:
        case str():
            return schema in _PRIMITIVES or known.get(schema, False)
        case list():
            # The number of the branch takes a byte, so here nothing may be nothing.
            return all(each == "null" or _affordable(each, known) for each in schema)
        case {"logicalType": logical} if logical not in _LOGICAL:
            return False
        case {"type": "record" | "error", "name": str(name), "fields": [_, *_] as fields}:
            known[name] = False
            known[name] = all(_affordable(each["type"], known) for each in fields)
            return known[name]
        case {"type": "enum", "name": str(name)}:
            known[name] = True
            return True
        case {"type": "fixed", "name": str(name), "size": int(size)}:
            known[name] = size > 0
            return known[name]
        case Mapping():
            return schema.get("type") in _PRIMITIVES
        case _:
            return False
