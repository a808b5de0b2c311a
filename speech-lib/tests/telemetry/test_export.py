"""Where spans go: nowhere unless an endpoint is set, and to a collector that is asked by HTTP."""

import asyncio
import subprocess
import sys
from http import HTTPStatus

import pytest
from speech_lib.errors import ConfigError
from speech_lib.service.config import ServiceSettings
from speech_lib.telemetry.context import TraceContext
from speech_lib.telemetry.export import open_spans
from speech_lib.telemetry.settings import OtlpSettings
from speech_lib.telemetry.spans import NoSpans, Span, SpanKind
from structlog.testing import capture_logs
from support.otlp_receiver import collector

KAFKA = {"KAFKA_BOOTSTRAP_SERVERS": "kafka:9092", "SCHEMA_REGISTRY_URL": "http://registry"}
NOBODY = "http://127.0.0.1:1"
SPAN = Span("work", SpanKind.INTERNAL, TraceContext.begin(), None, 1_000, 2_000)


def settings(**variables: str) -> OtlpSettings | None:
    return ServiceSettings.load(KAFKA | variables).otlp()


def test_nothing_is_exported_unless_an_endpoint_is_set():
    """Headers alone export nothing."""
    assert settings(OTEL_EXPORTER_OTLP_HEADERS="a=b") is None
    assert isinstance(open_spans(None, service="s", version="v"), NoSpans)


def test_the_settings_are_openTelemetrys():  # noqa: N802 - its name
    """The path is added to the endpoint; headers are pairs, percent-encoded."""
    otlp = settings(
        OTEL_EXPORTER_OTLP_ENDPOINT="https://collector:4318/base/",
        OTEL_EXPORTER_OTLP_HEADERS="api-key=a%20b, tenant=c=d",
        OTEL_EXPORTER_OTLP_TIMEOUT="2.5",
    )
    assert otlp is not None
    assert otlp.traces_url == "https://collector:4318/base/v1/traces"
    assert otlp.header_fields() == {"api-key": "a b", "tenant": "c=d"}
    assert otlp.timeout_seconds == 2.5
    assert "collector" not in repr(otlp)
    assert "a%20b" not in repr(otlp)


@pytest.mark.parametrize(
    ("variable", "value", "line"),
    [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4317", "expected an http:// or https:// URL"),
        (
            "OTEL_EXPORTER_OTLP_HEADERS",
            "s3cret",
            "expected name=value, or several separated by commas",
        ),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "0", "expected a number from 0.1 to 600, got 0"),
        (
            "OTEL_RESOURCE_ATTRIBUTES",
            "=x",
            "expected name=value, or several separated by commas",
        ),
    ],
)
def test_a_wrong_variable_is_named(variable, value, line):
    """With what it takes, and without what may be a secret."""
    with pytest.raises(ConfigError) as caught:
        settings(**{variable: value})
    assert str(caught.value) == f"{variable}: {line}"


def test_what_is_missing_to_export_is_said(monkeypatch):
    """One line names the variable, and what to install."""
    monkeypatch.setitem(sys.modules, "speech_lib.telemetry.otlp", None)
    with pytest.raises(ConfigError) as caught:
        open_spans(OtlpSettings(NOBODY), service="speech-gateway", version="1")
    assert str(caught.value) == (
        "OTEL_EXPORTER_OTLP_ENDPOINT: needs the extra otlp, "
        "expected speech-gateway[otlp] to be installed"
    )


@pytest.mark.pipeline
@pytest.mark.parametrize("service", ["speech_gateway", "speech_asr"])
def test_without_an_endpoint_nothing_of_it_is_loaded(service):
    """No import, so no cost: seen in a process that has loaded a whole service."""
    loaded = "[name for name in sys.modules if name.startswith('opentelemetry')]"
    code = f"import sys, {service}.__main__; print({loaded})"
    said = subprocess.run(  # noqa: S603 - our own modules
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert said.stdout == "[]\n"


async def export(otlp: OtlpSettings, *spans: Span) -> int:
    """Export spans and return how many were lost."""
    sink = open_spans(otlp, service="s", version="v")
    for span in spans:
        sink.record(span)
    await sink.close()
    return sink.lost


@pytest.mark.pipeline
def test_closing_exports_what_is_left():
    """At the end of a service nothing waits for the next second."""
    with collector() as taking:
        assert asyncio.run(export(OtlpSettings(taking.endpoint), SPAN)) == 0
        (span,) = taking.spans
        assert (span.service, span.name, span.kind) == ("s", "work", "INTERNAL")
        assert (span.trace_id, span.parent_id) == (SPAN.context.trace_id, "")
        assert (span.start_ns, span.end_ns) == (1_000, 2_000)


@pytest.mark.pipeline
def test_what_a_collector_refuses_is_lost_and_told_once():
    """Its number is in the log, and no address."""
    with collector() as taking, capture_logs() as lines:
        taking.status = HTTPStatus.BAD_REQUEST
        assert asyncio.run(export(OtlpSettings(taking.endpoint), SPAN, SPAN)) == 2
    assert lines == [{"event": "spans_lost", "log_level": "warning", "spans": 2}]


@pytest.mark.pipeline
def test_a_collector_that_is_away_holds_nobody(caplog):
    """Closing gives up after two seconds; what was not taken is counted."""

    async def scenario() -> tuple[int, float]:
        loop = asyncio.get_running_loop()
        began = loop.time()
        lost = await export(OtlpSettings(NOBODY, timeout_seconds=60), SPAN)
        return lost, loop.time() - began

    with capture_logs() as lines:
        lost, took = asyncio.run(scenario())
    assert lost == 1
    assert took < 10
    assert [line["spans"] for line in lines] == [1]
    assert caplog.records == []


@pytest.mark.pipeline
def test_what_waits_for_a_collector_is_bounded():
    """Beyond the bound spans are lost, and recording goes on without waiting."""
    sizes = []

    async def scenario() -> int:
        from speech_lib.telemetry.otlp import MAX_WAITING  # noqa: PLC0415 - not loaded by the quick tests

        sink = open_spans(OtlpSettings(NOBODY, timeout_seconds=60), service="s", version="v")
        for _ in range(3 * MAX_WAITING):
            sink.record(SPAN)
        sizes.append((len(sink._processor._batch_processor._queue), MAX_WAITING))
        await sink.close()
        return sink.lost

    with capture_logs():
        lost = asyncio.run(scenario())
    ((waiting, bound),) = sizes
    assert waiting <= bound
    assert lost == 3 * bound
