"""The Avro schemas of the events, as package data: one `NAME.avsc` for each event type."""

from functools import cache
from importlib.resources import files


@cache
def schema_text(event_type: str) -> str:
    """Return the schema of an event, as it is registered.

    Args:
        event_type: The event's `event_type`, which is the name of its record.
    """
    return files(__name__).joinpath(f"{event_type}.avsc").read_text(encoding="utf-8")
