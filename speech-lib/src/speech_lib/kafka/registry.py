"""The schema registry: ids of our schemas, schemas of other people's ids.

The gateway and the recogniser build a `SchemaRegistry` in their `run`, warm their `EventSerializer`
up before they are ready, and decode with an `EventDeserializer`. All calls block: run them in a
thread. The client library's own retries are off, because waiting is the caller's business
(`startup`).
"""

import logging
from collections.abc import Callable
from typing import Generic, TypeVar

from confluent_kafka.schema_registry import Schema, SchemaRegistryClient, SchemaRegistryError

from speech_lib.errors import RegistryUnavailable, SchemaNotFound, SchemaRefused
from speech_lib.events import AnyEvent, codec
from speech_lib.events.schemas import schema_text

EventT = TypeVar("EventT", bound=AnyEvent)
T = TypeVar("T")

_NOT_FOUND = 404
_REFUSALS = frozenset({401, 403, 409, 422})
"""Not permitted; incompatible with what is there; not a valid schema (HTTP status codes)."""


def subject_of(topic: str) -> str:
    """Return the subject of a topic's values (TopicNameStrategy)."""
    return f"{topic}-value"


class SchemaRegistry:
    """A client of the registry's REST API.

    Args:
        url: Of the registry, `http://…` or `https://…`.
        timeout: Seconds to connect, and again to answer.
    """

    def __init__(self, url: str, timeout: float = 3.0) -> None:
        # They log every request with its address.
        for name in ("httpx", "httpx2", "httpcore", "httpcore2"):
            logging.getLogger(name).setLevel(logging.WARNING)
        self._client = SchemaRegistryClient({"url": url, "timeout": timeout, "max.retries": 0})

    def register(self, subject: str, schema: str) -> int:
        """Add a schema to a subject, unless it is there, and return its id.

        Raises:
            SchemaRefused: It is not compatible with those before it, not valid, or not permitted.
            RegistryUnavailable: Later it may work.
        """
        return _translated(
            lambda: self._client.register_schema(subject, Schema(schema, "AVRO")), subject
        )

    def lookup(self, subject: str, schema: str) -> int:
        """Return the id of a schema that somebody has registered.

        Raises:
            SchemaNotFound: Nobody has.
            SchemaRefused: It is not valid, or asking is not permitted.
            RegistryUnavailable: Later it may work.
        """
        found = _translated(
            lambda: self._client.lookup_schema(subject, Schema(schema, "AVRO")), subject
        )
        return _required(found.schema_id)

    def schema(self, schema_id: int) -> str:
        """Return the schema of an id; asks once for each.

        Raises:
            SchemaNotFound: The registry does not know the id.
            RegistryUnavailable: Later it may work.
        """
        found = _translated(lambda: self._client.get_schema(schema_id), f"id {schema_id}")
        return _required(found.schema_str)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()


def _required(value: T | None) -> T:
    if value is None:
        raise RegistryUnavailable("the registry's answer lacks what was asked for")
    return value


def _translated(call: Callable[[], T], what: str) -> T:
    try:
        return call()
    except SchemaRegistryError as error:
        status = error.http_status_code
        if status == _NOT_FOUND:
            raise SchemaNotFound(f"the registry does not know the schema of {what}") from None
        if status in _REFUSALS:
            raise SchemaRefused(
                f"the registry refuses the schema of {what} (HTTP {status})"
            ) from None
        raise RegistryUnavailable(f"the registry answers HTTP {status}") from None
    except Exception as error:  # noqa: BLE001  # which HTTP library is used is the client's affair
        raise RegistryUnavailable(
            f"the registry cannot be reached: {type(error).__name__}"
        ) from None


class EventSerializer(Generic[EventT]):
    """Encodes the events of one topic.

    Args:
        registry: Where the schema's id comes from.
        topic: Decides on the subject.
        event_class: What will be encoded.
        auto_register: Whether a schema that is not registered yet may be; if not, it is looked up.
    """

    def __init__(
        self,
        registry: SchemaRegistry,
        topic: str,
        event_class: type[EventT],
        *,
        auto_register: bool,
    ) -> None:
        self._learn = registry.register if auto_register else registry.lookup
        self._subject = subject_of(topic)
        self._schema = schema_text(event_class.event_type)
        self._schema_id: int | None = None

    def warm_up(self) -> None:
        """Learn the schema's id. Blocks; call it until it succeeds.

        Raises:
            SchemaRefused: The registry will not have the schema.
            SchemaNotFound: It is not registered, and may not be.
            RegistryUnavailable: Later it may work.
        """
        self._schema_id = self._learn(self._subject, self._schema)

    def encode(self, event: EventT) -> bytes:
        """Return the record's value. No I/O.

        Raises:
            RegistryUnavailable: `warm_up` has not succeeded yet.
        """
        if self._schema_id is None:
            raise RegistryUnavailable("the schema's id is not known yet")
        return codec.encode(event, self._schema_id)


class EventDeserializer(Generic[EventT]):
    """Decodes events of one kind, whichever version of its schema they were written with.

    Args:
        registry: Where the schemas of others come from.
        event_class: What will be decoded.
    """

    def __init__(self, registry: SchemaRegistry, event_class: type[EventT]) -> None:
        self._registry = registry
        self._event_class = event_class
        self._own_id: int | None = None

    def warm_up(self, topic: str, *, auto_register: bool) -> None:
        """Learn the id of our own version of the schema, so that it is never asked for again.

        A registry that is away, or comes back empty, then disturbs no reader of current events.
        Blocks; call it until it succeeds. Without it every id is asked for when it is first seen.

        Args:
            topic: What will be read; decides on the subject.
            auto_register: Whether the schema may be registered if nobody has yet.

        Raises:
            SchemaRefused: The topic's events are not what this reader can read.
            SchemaNotFound: The schema is not registered, and may not be.
            RegistryUnavailable: Later it may work.
        """
        learn = self._registry.register if auto_register else self._registry.lookup
        self._own_id = learn(subject_of(topic), schema_text(self._event_class.event_type))

    def decode(self, value: bytes) -> EventT:
        """Return the event. Blocks only for a schema id not seen before.

        Raises:
            NotAvro: Not a whole record in the wire format.
            WrongSchema: Written as something else.
            EventError: A value is not what the event takes.
            SchemaNotFound: The registry does not know the writer's schema.
            RegistryUnavailable: Later it may work.
        """
        schema_id, _ = codec.split(value)
        return codec.decode(self._event_class, value, self._writer_schema(schema_id))

    def _writer_schema(self, schema_id: int) -> str:
        if schema_id == self._own_id:
            return schema_text(self._event_class.event_type)
        return self._registry.schema(schema_id)
