"""A schema registry over HTTP, with its schemas in memory: what `SchemaRegistryClient` asks for.

`embedded` runs it beside the broker; tests may run one of their own. `mock://` of confluent-kafka
would not do: each of its clients has a registry to itself, so no two processes agree on an id.
"""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import unquote, urlsplit

from speech_lib.testing.schema_store import RegistryError, SchemaStore

_CONTENT_TYPE = "application/vnd.schemaregistry.v1+json"
_MAX_BODY_BYTES = 1024 * 1024


class RegistryServer:
    """A registry that answers on the loopback interface between `with` and its end.

    Attributes:
        store: Its subjects and schemas.
        port: The port that it listens on, a free one where 0 was asked for.
    """

    def __init__(self, port: int = 0) -> None:
        self.store = SchemaStore()
        self._server = _Server(("127.0.0.1", port), self.store)
        self.port = self._server.server_port
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, name="registry"
        )

    @property
    def url(self) -> str:
        """The value for `SCHEMA_REGISTRY_URL`."""
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True  # a client that keeps its connection must not keep the process

    def __init__(self, address: tuple[str, int], store: SchemaStore) -> None:
        super().__init__(address, _Handler)
        self.store = store
        self.lock = threading.Lock()


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    timeout = 60
    # Head and body in one packet: two of them wait 40 ms for the client's delayed acknowledgement.
    wbufsize = -1

    def do_GET(self) -> None:
        self._answer("GET")

    def do_POST(self) -> None:
        self._answer("POST")

    def do_PUT(self) -> None:
        self._answer("PUT")

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's name
        """Stay silent: stdout and stderr belong to the program that embeds this."""

    def _answer(self, method: str) -> None:
        try:
            body = self._body()
            path = [unquote(part) for part in urlsplit(self.path).path.strip("/").split("/")]
            with self.server.lock:
                self._send(200, _dispatch(self.server.store, method, path, body))
        except RegistryError as error:
            self._send(error.status, {"error_code": error.code, "message": error.message})

    def _body(self) -> dict[str, Any]:
        length = self.headers.get("Content-Length", "0")
        if not length.isdecimal() or int(length) > _MAX_BODY_BYTES:
            self.close_connection = True  # the body stays unread
            raise RegistryError(413, 413, "Request body too large")
        try:
            body = json.loads(self.rfile.read(int(length)) or b"{}")
        except (ValueError, RecursionError) as error:
            raise RegistryError(400, 42201, "Invalid request body") from error
        if not isinstance(body, dict):
            raise RegistryError(400, 42201, "Invalid request body")
        return body

    def _send(self, status: int, answer: object) -> None:
        body = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", _CONTENT_TYPE)
        self.send_header("Content-Length", str(len(body)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)


def _dispatch(  # noqa: C901 - a table of all routes
    store: SchemaStore, method: str, path: list[str], body: dict[str, Any]
) -> object:
    """Answer one request; `path` is split and unquoted."""
    match method, path:
        case "POST", ["subjects", subject, "versions"]:
            return {"id": store.register(subject, body.get("schema"))}
        case "POST", ["subjects", subject]:
            return store.lookup(subject, body.get("schema"))
        case "GET", ["schemas", "ids", schema_id]:
            return {"schema": store.schema(schema_id), "schemaType": "AVRO"}
        case "GET", ["subjects"]:
            return store.subjects()
        case "GET", ["subjects", subject, "versions"]:
            return store.versions(subject)
        case "GET", ["subjects", subject, "versions", version]:
            return store.version(subject, version)
        case "GET", ["config"]:
            return {"compatibilityLevel": store.level(None)}
        case "GET", ["config", subject]:
            return {"compatibilityLevel": store.level(subject)}
        case "PUT", ["config"]:
            return {"compatibility": store.set_level(None, body.get("compatibility"))}
        case "PUT", ["config", subject]:
            return {"compatibility": store.set_level(subject, body.get("compatibility"))}
        case _:
            raise RegistryError(404, 404, "HTTP 404 Not Found")
