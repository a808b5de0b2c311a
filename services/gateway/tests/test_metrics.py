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


def test_each_server_has_a_registry_of_its_own():
    """Two servers in one process do not share counters, and nothing of the process is exposed."""
    first, second = Metrics(), Metrics()
    first.sessions_live.inc()
    names = {
        line.split()[2]
        for line in generate_latest(second.registry).decode().splitlines()
        if line.startswith("# TYPE")
    }
    assert second.registry.get_sample_value("speech_gateway_sessions_live") == 0
    assert all(name.startswith("speech_gateway_") for name in names)
