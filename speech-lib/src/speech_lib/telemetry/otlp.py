"""Export spans over OTLP (HTTP, protobuf). Only this module imports OpenTelemetry.

`export` loads it where an endpoint is set; the libraries come with the extra `otlp`. The SDK's
batch processor sends on a thread of its own, so no call here waits for a network. Spans that the
collector does not take are lost and counted, never kept beyond a bounded queue.
"""

import asyncio
import logging
import threading
import time
from collections.abc import Sequence

import structlog
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, TraceFlags
from opentelemetry.trace import SpanKind as SdkKind
from opentelemetry.trace.status import Status, StatusCode
from structlog.typing import FilteringBoundLogger

from speech_lib.telemetry.context import TraceContext
from speech_lib.telemetry.settings import OtlpSettings
from speech_lib.telemetry.spans import CONVENTIONS, ERROR_TYPE, Span, SpanKind

MAX_WAITING = 2048
"""The most spans that wait to be sent. Further ones are lost."""
_BATCH = 512
_SEND_EVERY_MS = 1_000
_CLOSE_SECONDS = 2.0
_REPORT_EVERY_SECONDS = 30.0
_SAMPLED = 0x01

_FROM_OUTSIDE = frozenset({SpanKind.SERVER, SpanKind.CONSUMER})
_KINDS = {kind: SdkKind[kind.name] for kind in SpanKind}
_log: FilteringBoundLogger = structlog.get_logger(__name__)


class OtlpSpans:
    """A `SpanSink` that exports the sampled spans to a collector.

    It starts a thread. The caller owes one `close`.

    Args:
        settings: How to reach the collector.
        service: The `service.name`.
        version: The service's version.
    """

    def __init__(self, settings: OtlpSettings, *, service: str, version: str) -> None:
        # Its own lines quote the endpoint. Our line `spans_lost` reports what they would.
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
        own = Resource({"service.name": service, "service.version": version})
        self._resource = own.merge(OTELResourceDetector().detect())
        self._scope = InstrumentationScope(service, version, schema_url=CONVENTIONS)
        self._handed_over = 0
        self._exporter = _CountingExporter(
            OTLPSpanExporter(
                endpoint=settings.traces_url,
                headers=settings.header_fields(),
                timeout=settings.timeout_seconds,
            )
        )
        self._processor = BatchSpanProcessor(
            self._exporter,
            max_queue_size=MAX_WAITING,
            schedule_delay_millis=_SEND_EVERY_MS,
            max_export_batch_size=_BATCH,
        )

    @property
    def lost(self) -> int:
        """How many spans were not exported."""
        return self._exporter.lost

    def wants(self, context: TraceContext) -> bool:
        """Return whether the trace is sampled. Its first service decides that for all."""
        return bool(context.flags & _SAMPLED)

    def record(self, span: Span) -> None:
        """Export a span soon; it is lost where too many wait."""
        if self._handed_over - self._exporter.taken >= MAX_WAITING:
            self._exporter.lose(1)
            return
        self._handed_over += 1
        self._processor.on_end(self._translate(span))

    async def close(self) -> None:
        """Export what is left, for at most two seconds."""
        ending = threading.Thread(target=self._processor.shutdown, daemon=True)
        ending.start()
        await asyncio.to_thread(ending.join, _CLOSE_SECONDS)
        if ending.is_alive():
            self._exporter.shutdown()  # ends the wait for another attempt
            self._exporter.give_up(self._handed_over)
        self._exporter.report()

    def _translate(self, span: Span) -> ReadableSpan:
        errors = {ERROR_TYPE: span.error} if span.error else {}
        remote = span.kind in _FROM_OUTSIDE
        return ReadableSpan(
            name=span.name,
            context=_ids(span.context),
            parent=_ids(span.parent, remote=remote) if span.parent else None,
            resource=self._resource,
            attributes={**span.attributes, **errors},
            links=[Link(_ids(span.link, remote=True))] if span.link else [],
            kind=_KINDS[span.kind],
            status=Status(StatusCode.ERROR if span.error else StatusCode.UNSET),
            start_time=span.start_ns,
            end_time=span.end_ns,
            instrumentation_scope=self._scope,
        )


class _CountingExporter(SpanExporter):
    """Counts and logs the spans that another exporter does not deliver.

    The processor's thread calls it; the service's thread calls `lose` too.
    """

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter
        self._lock = threading.Lock()
        self._reported = 0
        self._report_due = 0.0
        self._given_up = False
        self.taken = 0
        self.lost = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = self._exporter.export(spans)
        self.taken += len(spans)
        if result is not SpanExportResult.SUCCESS and not self._given_up:
            self.lose(len(spans))
        return result

    def give_up(self, handed_over: int) -> None:
        """Count the spans that were handed over and are not exported by now as lost."""
        self._given_up = True
        self.lose(handed_over - self.taken)

    def lose(self, spans: int) -> None:
        """Count spans that will not be exported; log their number now and then."""
        with self._lock:
            self.lost += spans
            due = time.monotonic() >= self._report_due
        if due:
            self.report()

    def report(self) -> None:
        """Log how many were lost since the last line, if any were."""
        with self._lock:
            new, self._reported = self.lost - self._reported, self.lost
            self._report_due = time.monotonic() + _REPORT_EVERY_SECONDS
        if new:
            _log.warning("spans_lost", spans=new)

    def shutdown(self) -> None:
        self._exporter.shutdown()


def _ids(context: TraceContext, *, remote: bool = False) -> SpanContext:
    return SpanContext(
        int(context.trace_id, 16), int(context.span_id, 16), remote, TraceFlags(context.flags)
    )
