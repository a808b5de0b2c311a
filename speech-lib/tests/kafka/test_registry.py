"""The registry's client and the codec on top of it, against a registry over HTTP."""

import http.server
import json
import logging
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import pytest
from speech_lib.errors import (
    NotAvro,
    RegistryUnavailable,
    SchemaNotFound,
    SchemaRefused,
    WrongSchema,
)
from speech_lib.events import (
    AudioInput,
    AudioInputEvent,
    TextRecognized,
    TextRecognizedEvent,
    codec,
)
from speech_lib.events.schemas import schema_text
from speech_lib.kafka.registry import EventDeserializer, EventSerializer, SchemaRegistry, subject_of
from speech_lib.testing.registry_server import RegistryServer

TOPIC = "speech.audio.ingress"
SCHEMA = schema_text("AudioInputEvent")
EVENT = AudioInputEvent(
    "5f0c9a1e-4f1d-4a7e-9a53-0d3c8a3f6b11",
    "9b2d6d0c-7c0e-4d8e-8f5e-3b7c2d1a0f42",
    datetime(2026, 1, 19, tzinfo=UTC),
    "gateway",
    AudioInput(b"RIFF"),
)


@pytest.fixture
def server() -> Iterator[RegistryServer]:
    with RegistryServer() as running:
        yield running


@contextmanager
def connected(url: str, timeout: float = 3.0) -> Iterator[SchemaRegistry]:
    """Yield a client and close its connections."""
    registry = SchemaRegistry(url, timeout)
    try:
        yield registry
    finally:
        registry.close()


@pytest.fixture
def registry(server) -> Iterator[SchemaRegistry]:
    with connected(server.url) as client:
        yield client


@contextmanager
def answering(status: int, body: object) -> Iterator[str]:
    """Run a server that answers everything alike; yield its URL."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            content = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        running.daemon_threads = True
        thread = threading.Thread(target=running.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{running.server_port}"
        finally:
            running.shutdown()
            thread.join()


def test_the_subject_is_named_after_the_topic():
    """TopicNameStrategy, for the record's value."""
    assert subject_of(TOPIC) == "speech.audio.ingress-value"


def test_a_schema_is_registered_once(server, registry):
    """Registering again gives the same id, to another client too, which can read the schema."""
    schema_id = registry.register("a-value", SCHEMA)
    with connected(server.url) as other:
        assert other.register("a-value", SCHEMA) == schema_id
        assert other.lookup("a-value", SCHEMA) == schema_id
        assert json.loads(other.schema(schema_id)) == json.loads(SCHEMA)


def test_a_schema_that_is_not_compatible_is_refused(registry):
    """The registry's verdict (409) is told with the subject."""
    registry.register("a-value", '{"type": "record", "name": "A", "fields": []}')
    with pytest.raises(SchemaRefused, match=r"refuses the schema of a-value \(HTTP 409\)"):
        registry.register("a-value", SCHEMA)


def test_a_schema_that_is_not_valid_is_refused(registry):
    """The registry's verdict (422) is told with the subject."""
    with pytest.raises(SchemaRefused, match=r"refuses the schema of a-value \(HTTP 422\)"):
        registry.register("a-value", '{"type": "nothing"}')


def test_what_is_not_registered_is_not_found(registry):
    """Neither an unknown subject nor an unknown schema of a subject is registered by looking."""
    for _ in range(2):
        with pytest.raises(SchemaNotFound, match="does not know the schema of a-value"):
            registry.lookup("a-value", SCHEMA)
    registry.register("a-value", '{"type": "record", "name": "A", "fields": []}')
    with pytest.raises(SchemaNotFound, match="does not know the schema of a-value"):
        registry.lookup("a-value", SCHEMA)


def test_an_unknown_id_is_not_found(registry):
    """The id of nothing has no schema."""
    with pytest.raises(SchemaNotFound, match="does not know the schema of id 4711"):
        registry.schema(4711)


def test_a_schema_is_asked_for_once():
    """An id's schema never changes: it is known even when the registry has gone."""
    with RegistryServer() as server, connected(server.url) as writer:
        schema_id = writer.register("a-value", SCHEMA)
        reader = SchemaRegistry(server.url)
        known = reader.schema(schema_id)
    assert reader.schema(schema_id) == known
    reader.close()


def test_a_registry_that_is_down_is_unavailable_at_once():
    """A refused connection is told without delay, without an address."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # nobody listens
        port = taken.getsockname()[1]
        with (
            connected(f"http://127.0.0.1:{port}") as registry,
            pytest.raises(RegistryUnavailable) as caught,
        ):
            registry.register("a-value", SCHEMA)
    assert str(caught.value) == "the registry cannot be reached: ConnectError"


@pytest.mark.timeout(5)
def test_a_registry_that_is_silent_is_unavailable_after_the_timeout():
    """A connection that is never answered does not hold the caller."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        with (
            connected(f"http://127.0.0.1:{port}", timeout=0.2) as registry,
            pytest.raises(RegistryUnavailable) as caught,
        ):
            registry.schema(1)
    assert str(caught.value) == "the registry cannot be reached: ReadTimeout"


@pytest.mark.parametrize(
    ("status", "body", "kind", "text"),
    [
        (500, {"error_code": 50001, "message": "m"}, RegistryUnavailable, "answers HTTP 500"),
        (503, "no JSON object", RegistryUnavailable, "answers HTTP 503"),
        (429, {"error_code": 42901, "message": "m"}, RegistryUnavailable, "answers HTTP 429"),
        (401, {"error_code": 40101, "message": "m"}, SchemaRefused, r"\(HTTP 401\)"),
        (403, {"error_code": 40301, "message": "m"}, SchemaRefused, r"\(HTTP 403\)"),
        (422, {"error_code": 42201, "message": "m"}, SchemaRefused, r"\(HTTP 422\)"),
        (200, ["no", "schema"], RegistryUnavailable, "cannot be reached"),
    ],
)
def test_each_answer_is_translated(status, body, kind, text):
    """What asking again cannot change is a refusal; anything else may pass."""
    with (
        answering(status, body) as url,
        connected(url) as registry,
        pytest.raises(kind, match=text) as caught,
    ):
        registry.register("a-value", SCHEMA)
    assert "127.0.0.1" not in str(caught.value)


def test_requests_are_not_logged(registry, caplog):
    """The HTTP client's log lines hold the registry's address."""
    caplog.set_level(logging.DEBUG)
    registry.register("a-value", SCHEMA)
    assert "127.0.0.1" not in caplog.text


@pytest.mark.parametrize("auto_register", [True, False])
def test_an_event_goes_through_the_registry(server, registry, auto_register):
    """What one service encodes another decodes, whoever registered the schema."""
    if not auto_register:
        registry.register(subject_of(TOPIC), SCHEMA)
    serializer = EventSerializer(registry, TOPIC, AudioInputEvent, auto_register=auto_register)
    serializer.warm_up()
    with connected(server.url) as other:
        value = serializer.encode(EVENT)
        assert EventDeserializer(other, AudioInputEvent).decode(value) == EVENT


def test_a_serializer_encodes_once_warm():
    """It learns the id once, and then needs no registry."""
    with RegistryServer() as server, connected(server.url) as registry:
        serializer = EventSerializer(registry, TOPIC, AudioInputEvent, auto_register=True)
        with pytest.raises(RegistryUnavailable, match="not known yet"):
            serializer.encode(EVENT)
        serializer.warm_up()
        schema_id = registry.lookup(subject_of(TOPIC), SCHEMA)
    assert serializer.encode(EVENT) == codec.encode(EVENT, schema_id)


def test_a_serializer_that_may_not_register_does_not(registry):
    """With auto_register off a schema that is not there stays so."""
    serializer = EventSerializer(registry, TOPIC, AudioInputEvent, auto_register=False)
    for _ in range(2):
        with pytest.raises(SchemaNotFound):
            serializer.warm_up()
    with pytest.raises(RegistryUnavailable, match="not known yet"):
        serializer.encode(EVENT)


def test_a_deserializer_refuses_what_it_cannot_read(registry):
    """Each way of being wrong has its own error."""
    text = TextRecognizedEvent.new(
        correlation_id=EVENT.correlation_id,
        source_service="asr",
        payload=TextRecognized("go", "en-US", 1),
    )
    serializer = EventSerializer(registry, TOPIC, TextRecognizedEvent, auto_register=True)
    serializer.warm_up()
    deserializer = EventDeserializer(registry, AudioInputEvent)
    with pytest.raises(WrongSchema):
        deserializer.decode(serializer.encode(text))
    with pytest.raises(NotAvro):
        deserializer.decode(b"RIFF")
    with pytest.raises(SchemaNotFound):
        deserializer.decode(b"\0\0\0\x12\x67")


@pytest.mark.parametrize("auto_register", [True, False])
def test_a_warm_deserializer_reads_current_events_without_the_registry(auto_register):
    """A registry that has gone, or comes back empty, does not disturb who knows the id."""
    with RegistryServer() as server, connected(server.url) as registry:
        schema_id = registry.register(subject_of(TOPIC), SCHEMA)
        deserializer = EventDeserializer(registry, AudioInputEvent)
        deserializer.warm_up(TOPIC, auto_register=auto_register)
    assert deserializer.decode(codec.encode(EVENT, schema_id)) == EVENT


def test_a_deserializer_is_told_of_events_that_it_could_not_read(registry):
    """A topic of another kind of event is refused before the first record is read."""
    registry.register(subject_of(TOPIC), '"string"')
    with pytest.raises(SchemaRefused):
        EventDeserializer(registry, AudioInputEvent).warm_up(TOPIC, auto_register=True)
