"""The metrics that the server writes, as Prometheus reads them."""

import pytest
from prometheus_client import generate_latest
from speech_gateway.metrics import Metrics
from speech_gateway.testing import hear, run_server, until
from websockets.asyncio.client import connect


@pytest.mark.anyio
async def test_a_session_is_counted():
    """One accepted utterance shows in every metric of sessions."""
    async with run_server() as server:
        value = server.gateway.metrics.registry.get_sample_value
        async with connect(server.url) as client:
            await client.recv()
            assert value("speech_gateway_sessions_live") == 1
            await client.send(bytes(640))
            await client.send('{"event":"done"}')
            await hear(client)
        await until(lambda: server.live == 0)
        assert value("speech_gateway_sessions_live") == 0
        labels = {"ended_by": "done", "outcome": "accepted"}
        assert value("speech_gateway_sessions_total", labels) == 1
        assert value("speech_gateway_stored_audio_bytes_total") == 640
        assert value("speech_gateway_store_seconds_count") == 1


def test_each_gateway_has_a_registry_of_its_own():
    """Two gateways in one process do not share counters."""
    first, second = Metrics(), Metrics()
    first.sessions_live.inc()
    assert second.registry.get_sample_value("speech_gateway_sessions_live") == 0


def test_what_is_exposed():
    """Metrics of the gateway and of its process; what the interpreter is, is nobody's business."""
    names = {
        line.split()[2]
        for line in generate_latest(Metrics().registry).decode().splitlines()
        if line.startswith("# TYPE")
    }
    assert {"speech_gateway_loop_lag_seconds", "process_resident_memory_bytes"} <= names
    assert all(name.startswith(("speech_gateway_", "process_")) for name in names)


def test_a_lag_of_the_loop_is_resolved_to_milliseconds():
    """A timer that was 4 ms late is told from one that was 2 ms late."""
    metrics = Metrics()
    for seconds in (0.002, 0.004):
        metrics.loop_lag_seconds.observe(seconds)
    value = metrics.registry.get_sample_value
    up_to = {
        bound: value("speech_gateway_loop_lag_seconds_bucket", {"le": bound})
        for bound in ("0.001", "0.002", "0.003", "0.005")
    }
    assert up_to == {"0.001": 0, "0.002": 1, "0.003": 1, "0.005": 2}
