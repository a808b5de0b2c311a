"""How to reach an OpenTelemetry collector. Pure. `service.config` builds it, `export` reads it."""

from dataclasses import dataclass, field
from urllib.parse import unquote

_TRACES_PATH = "/v1/traces"


@dataclass(frozen=True, slots=True)
class OtlpSettings:
    """How to export, by OpenTelemetry's environment variables.

    Attributes:
        endpoint: The collector's base URL.
        headers: Sent with each request: name=value, separated by commas, percent-encoded.
        timeout_seconds: The time for one request with all its attempts.
    """

    endpoint: str = field(repr=False)
    headers: str = field(default="", repr=False)
    timeout_seconds: float = 10.0

    @property
    def traces_url(self) -> str:
        """The URL that spans are sent to."""
        return self.endpoint.rstrip("/") + _TRACES_PATH

    def header_fields(self) -> dict[str, str]:
        """Return the headers by their names."""
        pairs = (item.partition("=") for item in self.headers.split(",") if item.strip())
        return {unquote(name.strip()): unquote(value.strip()) for name, _, value in pairs}
