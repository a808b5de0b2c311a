"""The metrics that the server writes, as Prometheus reads them."""

import pytest
from prometheus_client import generate_latest
from prometheus_client.samples import Sample
from speech_gateway import __version__
from speech_gateway.errors import Failure, NotStored
from speech_gateway.handshake import Refusal
from speech_gateway.metrics import Metrics
from speech_gateway.testing import Switch, hear, run_server, until
from speech_lib.kafka.producer import Queued
from websockets.asyncio.client import connect


def samples(metrics: Metrics, name: str) -> list[Sample]:
    """Return every sample of a name, whatever its labels."""
    families = metrics.registry.collect()
    return [each for family in families for each in family.samples if each.name == name]


@pytest.mark.anyio
async def test_a_session_is_counted():
    """One accepted utterance shows in every metric of sessions."""
    async with run_server() as server:
        value = server.gateway.metrics.registry.get_sample_value
        async with connect(server.url) as client:
            await client.recv()
            assert value("speech_gateway_sessions_live") == 1
            assert value("speech_gateway_sessions_limit") == server.gateway.admission.limit
            await client.send(bytes(640))
            await client.send('{"event":"done"}')
            await hear(client)
        await until(lambda: server.live == 0)
        assert value("speech_gateway_sessions_live") == 0
        labels = {"ended_by": "done", "outcome": "accepted"}
        assert value("speech_gateway_sessions_total", labels) == 1
        assert value("speech_gateway_stored_audio_bytes_total") == 640
        assert value("speech_gateway_stored_audio_seconds_total") == 0.02
        assert value("speech_gateway_store_seconds_count") == 1


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("failure", "stored"),
    [(Failure.BROKER_UNAVAILABLE, "unknown"), (Failure.REJECTED_BY_BROKER, "no")],
)
async def test_audio_that_is_not_stored_is_counted(failure, stored):
    """By why, and by what is known of it; nothing else of the kind has moved."""
    async with run_server() as server:
        server.store.failure = NotStored(failure, stored)
        async with connect(server.url) as client:
            await client.send(bytes(640))
            await client.send('{"event":"done"}')
            await hear(client)
        await until(lambda: server.live == 0)
        moved = {
            tuple(sample.labels.values()): sample.value
            for sample in samples(server.gateway.metrics, "speech_gateway_delivery_errors_total")
            if sample.value
        }
        assert moved == {(failure.value.code, stored): 1}
        count = server.gateway.metrics.registry.get_sample_value
        assert count("speech_gateway_stored_audio_bytes_total") == 0


def test_every_way_to_end_is_there_before_it_happens():
    """A rate shows the first one of a kind; what cannot be is not there."""
    metrics = Metrics()
    ends = {
        (each.labels["ended_by"], each.labels["outcome"])
        for each in samples(metrics, "speech_gateway_sessions_total")
    }
    kept = ("done", "disconnect", "idle_timeout", "session_expired", "shutting_down")
    stored = ("accepted", "broker_unavailable", "rejected_by_broker", "internal_error")
    lost = ("chunk_too_large", "protocol_error", "rate_limited", "invalid_message")
    lost += ("unsupported_audio", "empty_audio", "internal_error", "audio_too_long")
    assert ends == {
        *((end, outcome) for end in (*kept, "audio_too_long") for outcome in stored),
        *((end, end) for end in (*kept[1:], *lost)),
        ("disconnect", "discarded"),
        ("idle_timeout", "discarded"),
    }
    refusals = samples(metrics, "speech_gateway_refusals_total")
    assert {each.labels["code"] for each in refusals} == {each.value.code for each in Refusal}
    assert all(each.value == 0 for each in refusals)


def test_state_is_asked_for_when_the_page_is_read():
    """Readiness and the producer's queue need nobody who reports them."""
    metrics, ready = Metrics(), Switch()
    metrics.watch(ready, lambda: Queued(records=3, bytes=4096))
    value = metrics.registry.get_sample_value
    assert value("speech_gateway_ready") == 1
    ready.on = False
    assert value("speech_gateway_ready") == 0
    assert value("speech_gateway_producer_queued_records") == 3
    assert value("speech_gateway_producer_queued_bytes") == 4096
    assert value("speech_gateway_info", {"version": __version__}) == 1


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
