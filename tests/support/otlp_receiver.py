"""A small OpenTelemetry collector: takes spans over OTLP/HTTP on loopback and keeps them.

Used by the tests of the traces. What comes in is parsed by OpenTelemetry's own protocol buffers, so
it is what any collector would see.
"""

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1 import trace_pb2

Value = str | int | float | bool


@dataclass(frozen=True, slots=True)
class ReceivedSpan:
    """One span, as a collector sees it.

    Attributes:
        service: The resource's `service.name`.
        name: Of the span.
        kind: Such as `PRODUCER`.
        trace_id: Hexadecimal digits, as are the other ids.
        span_id: Its own.
        parent_id: Empty for the first of a trace.
        links: The ids of the spans that it links to.
        attributes: Its attributes.
        status: `UNSET`, `OK` or `ERROR`.
        start_ns: Nanoseconds since the epoch.
        end_ns: Likewise.
        resource: All attributes of the resource.
        schema_url: The conventions that it says it follows.
    """

    service: str
    name: str
    kind: str
    trace_id: str
    span_id: str
    parent_id: str
    links: tuple[str, ...]
    attributes: Mapping[str, Value]
    status: str
    start_ns: int
    end_ns: int
    resource: Mapping[str, Value]
    schema_url: str


@dataclass
class Collector:
    """What has come in; answers each request with `status`.

    Attributes:
        endpoint: What `OTEL_EXPORTER_OTLP_ENDPOINT` takes.
        status: What requests are answered with.
        headers: Of the latest request, by their names in small letters.
    """

    endpoint: str = ""
    status: HTTPStatus = HTTPStatus.OK
    headers: dict[str, str] = field(default_factory=dict)
    _spans: list[ReceivedSpan] = field(default_factory=list)
    _came: threading.Condition = field(default_factory=threading.Condition)

    @property
    def spans(self) -> list[ReceivedSpan]:
        """All spans so far."""
        with self._came:
            return list(self._spans)

    def wait_for(self, *names: str, trace_id: str = "", seconds: float = 30) -> list[ReceivedSpan]:
        """Return the spans of a trace (or all) once each of these names is among them.

        Raises:
            TimeoutError: Some did not come in time; it tells those that did.
        """
        deadline = time.monotonic() + seconds
        with self._came:
            while True:
                found = [each for each in self._spans if trace_id in {"", each.trace_id}]
                if set(names) <= {each.name for each in found}:
                    return found
                if not self._came.wait(deadline - time.monotonic()):
                    raise TimeoutError(f"only {sorted(each.name for each in found)}")

    def take(self, headers: Mapping[str, str], body: bytes) -> None:
        """Keep what one request brings."""
        spans = list(read(body))
        with self._came:
            self.headers = {name.lower(): value for name, value in headers.items()}
            self._spans += spans
            self._came.notify_all()


@contextmanager
def collector() -> Iterator[Collector]:
    """Run a collector on a free port of loopback."""
    running = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            right = self.path == "/v1/traces"
            status = running.status if right else HTTPStatus.NOT_FOUND
            if status is HTTPStatus.OK:
                running.take(dict(self.headers.items()), body)
            answer = ExportTraceServiceResponse().SerializeToString()
            self.send_response(status)
            self.send_header("Content-Type", "application/x-protobuf")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        running.endpoint = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield running
        finally:
            server.shutdown()
            thread.join()


def read(body: bytes) -> Iterator[ReceivedSpan]:
    """Yield the spans of one request."""
    request = ExportTraceServiceRequest.FromString(body)
    for group in request.resource_spans:
        resource = _values(group.resource.attributes)
        for scope in group.scope_spans:
            for span in scope.spans:
                yield _received(span, resource, scope.schema_url)


def _received(span: trace_pb2.Span, resource: Mapping[str, Value], schema_url: str) -> ReceivedSpan:
    kind = trace_pb2.Span.SpanKind.Name(span.kind)
    status = trace_pb2.Status.StatusCode.Name(span.status.code)
    return ReceivedSpan(
        service=str(resource["service.name"]),
        name=span.name,
        kind=kind.removeprefix("SPAN_KIND_"),
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex(),
        links=tuple(link.span_id.hex() for link in span.links),
        attributes=_values(span.attributes),
        status=status.removeprefix("STATUS_CODE_"),
        start_ns=span.start_time_unix_nano,
        end_ns=span.end_time_unix_nano,
        resource=resource,
        schema_url=schema_url,
    )


def _values(pairs: "list[KeyValue]") -> dict[str, Value]:
    return {pair.key: _value(pair.value) for pair in pairs}


def _value(value: AnyValue) -> Value:
    kind = value.WhichOneof("value")
    found: Value = getattr(value, kind) if kind else ""
    return found
