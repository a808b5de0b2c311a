"""Both `/metrics` pages, as Prometheus' own checker reads them."""

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from speech_asr.metrics import Metrics as AsrMetrics
from speech_gateway.metrics import Metrics as GatewayMetrics
from speech_lib.kafka.producer import Queued
from support import promtool


def gateway() -> CollectorRegistry:
    metrics = GatewayMetrics()
    metrics.watch(lambda: True, lambda: Queued(1, 640))
    metrics.sessions.labels("done", "accepted").inc()
    metrics.store_seconds.observe(0.02)
    return metrics.registry


def asr() -> CollectorRegistry:
    metrics = AsrMetrics()
    metrics.watch(lambda: True)
    metrics.show_lag({("speech.audio.ingress", partition): partition for partition in range(6)})
    metrics.real_time_factor.observe(0.4)
    return metrics.registry


def check(page: bytes) -> tuple[int, str]:
    """Give a page to `promtool check metrics`; return its exit code and its complaints."""
    done = promtool.run("check", "metrics", stdin=page.decode())
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("registry", [gateway, asr])
@pytest.mark.usefixtures("docker_client")
def test_promtool_finds_nothing_to_complain_of(registry):
    """Names, units, help texts and types are what Prometheus' conventions ask for."""
    assert check(generate_latest(registry())) == (0, "")


@pytest.mark.usefixtures("docker_client")
def test_promtool_is_really_asked():
    """A counter without its suffix is found, so an empty answer means that all is well."""
    code, complaints = check(b"# HELP audio Audio.\n# TYPE audio counter\naudio 1\n")
    assert (code, "_total" in complaints) == (3, True)
