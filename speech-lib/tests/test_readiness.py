"""Readiness follows the broker and the producer, at once where it matters."""

import asyncio
import time
from collections.abc import Iterator
from typing import Self

import pytest
import structlog
from confluent_kafka import KafkaError
from speech_lib import readiness
from speech_lib.kafka import KafkaSettings
from speech_lib.producer import RecordProducer
from speech_lib.readiness import watch_broker
from speech_lib.records import Record
from speech_lib.testing.mock_cluster import MockCluster
from structlog.testing import capture_logs

PRODUCE = 0
RECORD = Record("t", b"key", b"value")
NOTICED_SECONDS = 5.0
"""Generous, for a busy machine: the next question must come later than this."""


@pytest.fixture
def cluster() -> Iterator[MockCluster]:
    with MockCluster() as running:
        running.create_topic("t")
        yield running


class Watched:
    """A producer under watch, and what was reported of it."""

    def __init__(self, cluster: MockCluster) -> None:
        kafka = KafkaSettings(bootstrap_servers=cluster.bootstrap_servers)
        self.producer = RecordProducer(kafka, client_id="test", delivery_timeout=5.0)
        self.reports: list[tuple[bool, str]] = []

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

    async def until(self, wanted: tuple[bool, str], seconds: float) -> float:
        """Wait until something is reported anew; return how long it took."""
        began, known = time.monotonic(), len(self.reports)
        async with asyncio.timeout(seconds):
            while wanted not in self.reports[known:]:  # noqa: ASYNC110  # a list tells nobody
                await asyncio.sleep(0.005)
        return time.monotonic() - began


def test_a_producer_that_fails_is_reported_at_once(cluster, monkeypatch):
    """Not at the next question: a client that comes now must be told; then the new one is asked."""

    async def scenario():
        async with Watched(cluster) as watched:
            await watched.producer.send(RECORD)
            cluster.push_request_errors(PRODUCE, KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER)
            failing = asyncio.ensure_future(watched.producer.send(RECORD))
            took = await watched.until((False, "_FATAL"), NOTICED_SECONDS)
            await asyncio.gather(failing, return_exceptions=True)
            await watched.until((True, ""), 5.0)
            return took, await watched.producer.send(RECORD)

    monkeypatch.setattr(readiness, "_EVERY_SECONDS", 12 * NOTICED_SECONDS)
    with capture_logs() as logs:
        took, stored = asyncio.run(scenario())
    assert took < NOTICED_SECONDS
    assert stored.topic == "t"
    assert [line["event"] for line in logs] == ["broker_lost", "broker_back"]
    assert logs[0]["reason"] == "_FATAL"


@pytest.mark.pipeline
def test_a_broker_that_goes_and_comes_is_reported(cluster):
    """Within 10 s of its going, by a reason without addresses, and within 5 s of its return."""

    async def scenario():
        async with Watched(cluster) as watched:
            await watched.until((True, ""), 5.0)
            cluster.set_broker_down()
            async with asyncio.timeout(10):
                while watched.reports[-1][0]:  # noqa: ASYNC110  # a list tells nobody
                    await asyncio.sleep(0.01)
            reason = watched.reports[-1][1]
            cluster.set_broker_up()
            await watched.until((True, ""), 5.0)
            return reason

    with capture_logs() as logs:
        reason = asyncio.run(scenario())
    assert reason in {"_TRANSPORT", "_TIMED_OUT", "_ALL_BROKERS_DOWN"}
    assert [line["event"] for line in logs] == ["broker_lost", "broker_back"]
