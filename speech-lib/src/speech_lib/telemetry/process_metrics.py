"""What every service tells of its own process, beside what it counts; in its own registry.

Used by each service's `metrics`, so that alerts and dashboards can ask all of them alike.
"""

from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Gauge, Histogram, Info, ProcessCollector

from speech_lib.telemetry.looplag import LAG_SECONDS


@dataclass(frozen=True, slots=True)
class ProcessMetrics:
    """What the service has to feed.

    Attributes:
        loop_lag_seconds: Given to `looplag.measure`.
        ready: Asks whether the service is, when the page is read.
    """

    loop_lag_seconds: Histogram
    ready: Gauge


def process_metrics(
    prefix: str, service: str, version: str, registry: CollectorRegistry
) -> ProcessMetrics:
    """Add loop lag, readiness, version, and the library's own collector to a registry.

    Args:
        prefix: What the names of the service's metrics begin with.
        service: What people call it.
        version: Its version.
        registry: Where the page is made from.
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
