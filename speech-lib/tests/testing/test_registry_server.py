"""The embedded schema registry, asked over HTTP by the services' client and by plain requests."""

import http.client
import json
from collections.abc import Iterator
from typing import Any

import pytest
from confluent_kafka.schema_registry import Schema, SchemaRegistryClient
from confluent_kafka.schema_registry.error import SchemaRegistryError
from speech_lib.testing.registry_server import RegistryServer


def record(*fields: dict[str, Any]) -> str:
    """Return a record schema with the field x and those given."""
    all_fields = [{"name": "x", "type": "int"}, *fields]
    return json.dumps({"type": "record", "name": "A", "namespace": "n", "fields": all_fields})


FIRST = record()
WITH_DEFAULT = record({"name": "y", "type": "int", "default": 0})
WITHOUT_DEFAULT = record({"name": "y", "type": "int"})
FIRST_VERSION = {
    "subject": "a",
    "id": 1,
    "version": 1,
    "schemaType": "AVRO",
    "schema": FIRST.replace(" ", ""),
}


@pytest.fixture
def server() -> Iterator[RegistryServer]:
    """Run a registry of its own."""
    with RegistryServer() as running:
        yield running


@pytest.fixture
def client(server: RegistryServer) -> Iterator[SchemaRegistryClient]:
    """Connect the client that the services use."""
    with SchemaRegistryClient({"url": server.url, "timeout": 5, "max.retries": 0}) as connected:
        yield connected


def ask(server: RegistryServer, method: str, path: str, body: str | None = None) -> tuple[int, Any]:
    """Send one request and return status and answer."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=5)
    try:
        connection.request(method, path, body)
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    finally:
        connection.close()


def register(server: RegistryServer, subject: str, schema: str) -> tuple[int, Any]:
    """Register a schema and return status and answer."""
    return ask(server, "POST", f"/subjects/{subject}/versions", json.dumps({"schema": schema}))


def test_client_registers_once_and_reads_back(client: SchemaRegistryClient) -> None:
    """The same schema has one id under every subject, and is found by id and by text."""
    schema = Schema(FIRST, "AVRO")
    ids = [client.register_schema(subject, schema) for subject in ("a", "a", "b/é")]
    found = client.lookup_schema("b/é", schema)
    by_id = json.loads(client.get_schema(1).schema_str)
    assert (ids, client.get_subjects()) == ([1, 1, 1], ["a", "b/é"])
    assert (found.schema_id, found.version, by_id) == (1, 1, json.loads(FIRST))


def test_client_sees_refusal_of_incompatible_schema(client: SchemaRegistryClient) -> None:
    """A reader that old records give no value for its field is refused with 409."""
    client.register_schema("a", Schema(FIRST, "AVRO"))
    with pytest.raises(SchemaRegistryError) as refusal:
        client.register_schema("a", Schema(WITHOUT_DEFAULT, "AVRO"))
    assert (refusal.value.http_status_code, refusal.value.error_code) == (409, 409)
    assert client.get_versions("a") == [1]


@pytest.mark.parametrize(
    ("old", "new", "compatible"),
    [
        (FIRST, WITH_DEFAULT, True),
        (FIRST, WITHOUT_DEFAULT, False),
        (WITHOUT_DEFAULT, FIRST, True),
        ('"int"', '"long"', True),
        ('"long"', '"int"', False),
        ('["null","int"]', '["null","int","string"]', True),
        ('["null","int"]', '"int"', False),
        (FIRST, FIRST.replace('"A"', '"B"'), False),
    ],
)
def test_new_version_must_read_what_the_old_one_wrote(
    server: RegistryServer, old: str, new: str, *, compatible: bool
) -> None:
    """BACKWARD: Avro's schema resolution decides, with the new schema as the reader."""
    assert register(server, "a", old) == (200, {"id": 1})
    assert register(server, "a", new)[0] == (200 if compatible else 409)


def test_backward_looks_at_the_latest_only_and_transitive_at_all(server: RegistryServer) -> None:
    """A field with a default, then the same without: only the second step shows the first."""
    register(server, "a", FIRST)
    register(server, "a", WITH_DEFAULT)
    ask(server, "PUT", "/config/a", '{"compatibility":"BACKWARD_TRANSITIVE"}')
    refused = register(server, "a", WITHOUT_DEFAULT)[0]
    ask(server, "PUT", "/config/a", '{"compatibility":"BACKWARD"}')
    accepted = register(server, "a", WITHOUT_DEFAULT)[0]
    assert (refused, accepted) == (409, 200)


def test_level_none_accepts_anything(server: RegistryServer) -> None:
    """The level of all subjects can be lowered, and a subject may have its own."""
    register(server, "a", '"long"')
    assert ask(server, "PUT", "/config", '{"compatibility":"none"}') == (
        200,
        {"compatibility": "NONE"},
    )
    assert register(server, "a", '"int"')[0] == 200
    assert ask(server, "GET", "/config") == (200, {"compatibilityLevel": "NONE"})


@pytest.mark.parametrize(
    ("method", "path", "answer"),
    [
        ("GET", "/schemas/ids/1", {"schema": FIRST_VERSION["schema"], "schemaType": "AVRO"}),
        ("GET", "/subjects", ["a"]),
        ("GET", "/subjects/a/versions", [1]),
        ("GET", "/subjects/a/versions/1", FIRST_VERSION),
        ("GET", "/subjects/a/versions/latest", FIRST_VERSION),
        ("GET", "/config", {"compatibilityLevel": "BACKWARD"}),
    ],
)
def test_answers(server: RegistryServer, method: str, path: str, answer: object) -> None:
    """What is known is told in the Confluent registry's form."""
    register(server, "a", FIRST)
    assert ask(server, method, path) == (200, answer)


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code"),
    [
        ("GET", "/schemas/ids/2", None, 404, 40403),
        ("GET", "/schemas/ids/x", None, 404, 40403),
        ("GET", "/subjects/b/versions", None, 404, 40401),
        ("GET", "/subjects/b/versions/latest", None, 404, 40401),
        ("GET", "/subjects/a/versions/2", None, 404, 40402),
        ("GET", "/subjects/a/versions/x", None, 422, 42202),
        ("GET", "/subjects/a/versions/0", None, 422, 42202),
        ("GET", "/config/a", None, 404, 40408),
        ("PUT", "/config", '{"compatibility":"UPWARD"}', 422, 42203),
        ("POST", "/subjects/b", json.dumps({"schema": FIRST}), 404, 40401),
        ("POST", "/subjects/a", json.dumps({"schema": WITH_DEFAULT}), 404, 40403),
        ("POST", "/subjects/a/versions", '{"schema":"{"}', 422, 42201),
        ("POST", "/subjects/a/versions", '{"schema":"\\"nope\\""}', 422, 42201),
        ("POST", "/subjects/a/versions", '{"other":1}', 422, 42201),
        ("POST", "/subjects/a/versions", "nojson", 400, 42201),
        ("POST", "/subjects/a/versions", "[]", 400, 42201),
        ("GET", "/nope", None, 404, 404),
    ],
)
def test_refusals(
    server: RegistryServer, method: str, path: str, body: str | None, status: int, code: int
) -> None:
    """What is unknown or wrong gets the status and the code that the Confluent registry gives."""
    register(server, "a", FIRST)
    answered_status, answer = ask(server, method, path, body)
    assert (answered_status, answer["error_code"]) == (status, code)


def test_body_that_is_too_large_is_refused_unread(server: RegistryServer) -> None:
    """The announced length decides, and the connection ends with the answer."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=5)
    try:
        connection.putrequest("POST", "/subjects/a/versions")
        connection.putheader("Content-Length", "1048577")
        connection.endheaders()
        response = connection.getresponse()
        assert (response.status, json.loads(response.read())["error_code"]) == (413, 413)
        assert response.getheader("Connection") == "close"
    finally:
        connection.close()


def test_registering_again_changes_nothing(server: RegistryServer) -> None:
    """An older version that is sent again keeps its id, although it could not follow the latest."""
    answers = [register(server, "a", schema) for schema in ('"int"', '"long"', '"int"')]
    assert answers == [(200, {"id": 1}), (200, {"id": 2}), (200, {"id": 1})]
    assert ask(server, "GET", "/subjects/a/versions") == (200, [1, 2])


def test_subject_may_have_a_level_of_its_own(server: RegistryServer) -> None:
    """It counts for this subject and for no other."""
    ask(server, "PUT", "/config/a", '{"compatibility":"NONE"}')
    levels = [ask(server, "GET", path) for path in ("/config/a", "/config")]
    assert levels == [(200, {"compatibilityLevel": level}) for level in ("NONE", "BACKWARD")]


def test_port_is_free_again_after_the_end() -> None:
    """What the context manager opened, it closes: the same port can be taken at once."""
    with RegistryServer() as first:
        port = first.port
    with RegistryServer(port) as second:
        assert ask(second, "GET", "/subjects") == (200, [])
