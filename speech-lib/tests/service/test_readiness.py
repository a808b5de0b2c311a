"""Readiness follows the broker and the producer, at once where it matters."""

import asyncio
from typing import Self

import pytest
import structlog
from confluent_kafka import KafkaError
from speech_lib.kafka.producer import RecordProducer
from speech_lib.kafka.records import Record
from speech_lib.kafka.settings import KafkaSettings
from speech_lib.service import readiness
from speech_lib.service.readiness import watch_broker
from speech_lib.testing.mock_cluster import MockCluster
from structlog.testing import capture_logs

PRODUCE = 0
RECORD = Record("t", b"key", b"value")
NOTICED_SECONDS = 5.0
"""Generous, for a busy machine: the next question must come later than this."""


class Watched:
    """A producer under watch, and what was reported of it."""

    def __init__(self, cluster: MockCluster) -> None:
        kafka = KafkaSettings(bootstrap_servers=cluster.bootstrap_servers)
        self.producer = RecordProducer(kafka, client_id="test", delivery_timeout=5.0)
        self.reports: list[tuple[bool, str]] = []
        self._seen = 0

    async def __aenter__(self) -> Self:
        log = structlog.get_logger()
        watching = watch_broker(
            self.producer, "t", lambda *report: self.reports.append(report), log=log
        )
        self._watch = asyncio.create_task(watching)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._watch.cancel()
        await asyncio.gather(self._watch, return_exceptions=True)
        await self.producer.close(0)

    async def until(self, ok: bool, seconds: float) -> str:  # noqa: FBT001
        """Wait for the next such report behind the one waited for before; return its reason."""
        async with asyncio.timeout(seconds):
            while True:
                for report in self.reports[self._seen :]:
                    self._seen += 1
                    if report[0] == ok:
                        return report[1]
                await asyncio.sleep(0.005)  # a list tells nobody


def test_a_producer_that_fails_is_reported_at_once(cluster, monkeypatch):
    """Not at the next question: a client that comes now must be told; then the new one is asked."""

    async def scenario():
        async with Watched(cluster) as watched:
            await watched.producer.send(RECORD)
            cluster.push_request_errors(PRODUCE, KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER)
            failing = asyncio.ensure_future(watched.producer.send(RECORD))
            reason = await watched.until(False, NOTICED_SECONDS)
            await asyncio.gather(failing, return_exceptions=True)
            await watched.until(True, NOTICED_SECONDS)
            return reason, await watched.producer.send(RECORD)

    monkeypatch.setattr(readiness, "_EVERY_SECONDS", 12 * NOTICED_SECONDS)
    with capture_logs() as logs:
        reason, stored = asyncio.run(scenario())
    assert (reason, stored.topic) == ("_FATAL", "t")
    assert [line["event"] for line in logs] == ["broker_lost", "broker_back"]
    assert logs[0]["reason"] == "_FATAL"


@pytest.mark.pipeline
def test_a_broker_that_goes_and_comes_is_reported(cluster):
    """Within 10 s of its going, by a reason without addresses, and within 5 s of its return."""

    async def scenario():
        async with Watched(cluster) as watched:
            await watched.until(True, 5.0)
            cluster.set_broker_down()
            reason = await watched.until(False, 10.0)
            cluster.set_broker_up()
            await watched.until(True, 5.0)
            return reason

    with capture_logs() as logs:
        reason = asyncio.run(scenario())
    assert reason in {"_TRANSPORT", "_TIMED_OUT", "_ALL_BROKERS_DOWN"}
    assert [line["event"] for line in logs] == ["broker_lost", "broker_back"]
