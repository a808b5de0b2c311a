"""Where spans go: to an OTLP endpoint if the environment names one, else nowhere.

`__main__` of each service opens the sink first and closes it last. Nothing of OpenTelemetry is
imported unless an endpoint is set.
"""

from speech_lib.errors import ConfigError
from speech_lib.telemetry.settings import OtlpSettings
from speech_lib.telemetry.spans import NoSpans, SpanSink

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"


def open_spans(settings: OtlpSettings | None, *, service: str, version: str) -> SpanSink:
    """Return where the spans of a service go; the caller owes one `close`.

    Args:
        settings: Nothing where nothing is to be exported.
        service: Its `service.name`, unless OTEL_SERVICE_NAME says another.
        version: Its version.

    Raises:
        ConfigError: The libraries for it are not installed.
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
