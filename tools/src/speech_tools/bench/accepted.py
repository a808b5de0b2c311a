"""How long `accepted` takes beside what it cannot be faster than: a bare produce and a bare reply.

The bare producer is librdkafka's own, with the settings that the gateway's has. It knows no events
and no deadlines.
"""

import asyncio
import time
from collections.abc import Mapping, Sequence

from confluent_kafka import KafkaError, KafkaException, Message, Producer
from speech_lib.events import BYTES_PER_SECOND
from speech_lib.kafka.settings import KafkaSettings, client_logger

from speech_tools import stack
from speech_tools.bench import clients
from speech_tools.bench.clients import MESSAGE_BYTES, BenchError
from speech_tools.bench.result import P50, P99, Line, spreads
from speech_tools.bench.servers import RAW_TOPIC, Server
from speech_tools.percentiles import percentiles

UTTERANCE_SECONDS = 5.0
UTTERANCE_BYTES = round(UTTERANCE_SECONDS * BYTES_PER_SECOND)
SPEED = 10
"""How much faster than speech it is spoken: only what follows its end is measured."""
CLIENTS = (1, 10)
OVER_BARE, TIMES_BARE = "over bare, ms", "times bare"
PRODUCE, REPLY, BARE = "raw produce", "bare reply", "produce + reply"
_DELIVERY_SECONDS = 30.0

Waits = Mapping[str, Sequence[float]]
"""Seconds, by what was waited for."""


class RawProducer:
    """Stores records as large as an utterance, and tells how long each took. Blocks."""

    def __init__(self, kafka: stack.Addresses) -> None:
        shared = KafkaSettings(bootstrap_servers=kafka.bootstrap_servers).client_config()
        config = {**shared, "enable.idempotence": True, "acks": "all", "linger.ms": 0}
        self._producer = Producer(config, logger=client_logger("bench"))

    def store(self, records: int) -> list[float]:
        """Store so many at once, and return the seconds until each was stored.

        Raises:
            BenchError: One was not.
        """
        waits, problems = list[float](), list[str]()
        began = time.monotonic()

        def stored(error: KafkaError | None, _: Message) -> None:
            if error is not None:
                problems.append(error.name())
            waits.append(time.monotonic() - began)

        try:
            for _ in range(records):
                self._producer.produce(RAW_TOPIC, bytes(UTTERANCE_BYTES), on_delivery=stored)
            self._producer.flush(_DELIVERY_SECONDS)
        except (BufferError, KafkaException) as error:
            raise BenchError(f"a record was not stored: {error}") from None
        if problems or len(waits) < records:
            raise BenchError(f"a record was not stored: {(*problems, 'no answer')[0]}")
        return waits


async def round_of(
    producer: RawProducer, bare: Server, gateway: Server, count: int, at_once: int
) -> Waits:
    """Do each of the three `count` times, in turns, with `at_once` clients.

    Raises:
        BenchError: Something was not stored, or not accepted.
    """
    waits: dict[str, list[float]] = {PRODUCE: [], REPLY: [], gateway.name: []}
    for _ in range(count):
        waits[PRODUCE] += await asyncio.to_thread(producer.store, at_once)
        waits[REPLY] += await _spoken(bare.url, at_once)
        waits[gateway.name] += await _spoken(gateway.url, at_once)
    return waits


async def _spoken(url: str, at_once: int) -> list[float]:
    count = UTTERANCE_BYTES // MESSAGE_BYTES
    return await clients.at_once(url, at_once, MESSAGE_BYTES, count, SPEED)


def lines(part: str, at_once: int, rounds: Sequence[Waits]) -> list[Line]:
    """Put the rounds together: each wait, the bare ones added, and the gateway beside the sum."""
    who = "one client" if at_once == 1 else f"{at_once} clients"
    told = [_figures(each) for each in rounds]
    return [Line(part, who, name, spreads([each[name] for each in told])) for name in told[0]]


def _figures(waits: Waits) -> dict[str, dict[str, float]]:
    found = {name: _in_ms(each) for name, each in waits.items()}
    bare = {name: found[PRODUCE][name] + found[REPLY][name] for name in (P50, P99)}
    gateway = next(name for name in found if name not in {PRODUCE, REPLY})
    beside = {
        OVER_BARE: found[gateway][P50] - bare[P50],
        TIMES_BARE: found[gateway][P50] / bare[P50],
    }
    return {
        PRODUCE: found[PRODUCE],
        REPLY: found[REPLY],
        BARE: bare,
        gateway: found[gateway] | beside,
    }


def _in_ms(waits: Sequence[float]) -> dict[str, float]:
    half, most = percentiles(waits, (0.5, 0.99))
    return {P50: half * 1000, P99: most * 1000}
