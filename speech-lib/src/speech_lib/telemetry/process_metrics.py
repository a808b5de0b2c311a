"""The metrics that every service has of its own process.

Each service's `metrics` adds them, so that alerts and dashboards can ask all services alike.
"""

from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Gauge, Histogram, Info, ProcessCollector

from speech_lib.telemetry.looplag import LAG_SECONDS


@dataclass(frozen=True, slots=True)
class ProcessMetrics:
    """The metrics that the service has to feed.

    Attributes:
        loop_lag_seconds: Fed by `looplag.measure`.
        ready: The service sets its function; it is called when the page is read.
    """

    loop_lag_seconds: Histogram
    ready: Gauge


def process_metrics(
    prefix: str, service: str, version: str, registry: CollectorRegistry
) -> ProcessMetrics:
    """Add loop lag, readiness, version, and the library's own collector to a registry.

    Args:
        prefix: The beginning of the names of the service's metrics.
        service: The service's name for people.
        version: The service's version.
        registry: The registry that the metrics page shows.
    """
    Info(prefix, f"Version of the {service}.", registry=registry).info({"version": version})
    ProcessCollector(registry=registry)
    return ProcessMetrics(
        Histogram(
            f"{prefix}_loop_lag_seconds",
            "How late the event loop ran a timer, of ten a second.",
            buckets=LAG_SECONDS,
            registry=registry,
        ),
        Gauge(f"{prefix}_ready", "1 where /readyz answers 200, else 0.", registry=registry),
    )
