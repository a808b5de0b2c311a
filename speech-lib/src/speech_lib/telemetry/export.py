"""Choose where spans go: to an OTLP endpoint if the environment names one, else nowhere.

`__main__` of each service opens the sink first and closes it last. OpenTelemetry is imported only
where an endpoint is set.
"""

from speech_lib.errors import ConfigError
from speech_lib.telemetry.settings import OtlpSettings
from speech_lib.telemetry.spans import NoSpans, SpanSink

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"


def open_spans(settings: OtlpSettings | None, *, service: str, version: str) -> SpanSink:
    """Return the sink for the spans of a service; the caller owes one `close`.

    Args:
        settings: How to reach the collector; None exports nothing.
        service: The `service.name`, unless OTEL_SERVICE_NAME gives another.
        version: The service's version.

    Raises:
        ConfigError: OpenTelemetry is not installed.
    """
    if settings is None:
        return NoSpans()
    try:
        from speech_lib.telemetry.otlp import OtlpSpans  # noqa: PLC0415 - no cost without an endpoint
    except ModuleNotFoundError:
        raise ConfigError(
            f"{ENDPOINT}: needs the extra otlp, expected {service}[otlp] to be installed"
        ) from None
    return OtlpSpans(settings, service=service, version=version)
