"""The schema registry: the ids of our schemas, and the schemas of foreign ids.

The services build a `SchemaRegistry` in their `run`, warm their `EventSerializer` up before they
are ready, and decode with an `EventDeserializer`. All calls block, so they belong on a thread. The
client library does not retry: the caller waits (`startup`).
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
        url: `http://…` or `https://…`.
        timeout: Seconds to connect, and again to answer.
    """

    def __init__(self, url: str, timeout: float = 3.0) -> None:
        # These log every request with its address.
        for name in ("httpx", "httpx2", "httpcore", "httpcore2"):
            logging.getLogger(name).setLevel(logging.WARNING)
        self._client = SchemaRegistryClient({"url": url, "timeout": timeout, "max.retries": 0})

    def register(self, subject: str, schema: str) -> int:
        """Add a schema to a subject, unless the subject has it, and return its id.

        Raises:
            SchemaRefused: The schema is not compatible with its predecessors, not valid, or not
                permitted.
            RegistryUnavailable: Later it may work.
        """
        return _translated(
            lambda: self._client.register_schema(subject, Schema(schema, "AVRO")), subject
        )

    def lookup(self, subject: str, schema: str) -> int:
        """Return the id of a registered schema.

        Raises:
            SchemaNotFound: The schema is not registered.
            SchemaRefused: The schema is not valid, or asking is not permitted.
            RegistryUnavailable: Later it may work.
        """
        found = _translated(
            lambda: self._client.lookup_schema(subject, Schema(schema, "AVRO")), subject
        )
        return _required(found.schema_id)

    def schema(self, schema_id: int) -> str:
        """Return the schema of an id. Each id is asked for once.

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
        registry: Knows the schema's id.
        topic: Decides on the subject.
        event_class: The class of the events.
        auto_register: Whether to register the schema where it is not; otherwise it is looked up.
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
            SchemaRefused: The registry does not take the schema.
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
        registry: Knows the schemas of other writers.
        event_class: The class of the events.
    """

    def __init__(self, registry: SchemaRegistry, event_class: type[EventT]) -> None:
        self._registry = registry
        self._event_class = event_class
        self._own_id: int | None = None

    def warm_up(self, topic: str, *, auto_register: bool) -> None:
        """Learn the id of our own version of the schema, so that `decode` never asks for it.

        A registry that is away, or comes back empty, then disturbs no reader of current events.
        Blocks; call it until it succeeds. Without it `decode` asks for each id once.

        Args:
            topic: The topic that will be read; decides on the subject.
            auto_register: Whether to register the schema where it is not.

        Raises:
            SchemaRefused: This reader cannot read the topic's events.
            SchemaNotFound: The schema is not registered, and may not be.
            RegistryUnavailable: Later it may work.
        """
        learn = self._registry.register if auto_register else self._registry.lookup
        self._own_id = learn(subject_of(topic), schema_text(self._event_class.event_type))

    def decode(self, value: bytes) -> EventT:
        """Return the event. Blocks only for a schema id not seen before.

        Raises:
            NotAvro: The value is not a whole record in the wire format.
            WrongSchema: It was written with a schema that cannot be read as this event.
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
