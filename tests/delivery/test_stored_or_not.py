"""What the producer says of a record is what Kafka's log says, whatever was lost on the way.

What was called stored is there once, at the very offset; what was called not stored is not there.
"""

import asyncio
import contextlib
import itertools
import os
import random
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
from speech_lib.errors import DeliveryError
from speech_lib.kafka.producer import RecordProducer
from speech_lib.kafka.records import Record
from speech_lib.kafka.settings import KafkaSettings

STATISTICS_SECONDS = 0.6
"""After so long the producer's statistics have told of whatever was sent before."""
HARMS = ["lose answers", "break on answer", "keep requests", "refuse"]


@asynccontextmanager
async def producers(kafka: KafkaSettings, count: int, seconds: float) -> AsyncIterator[list]:
    """Producers of their own, so that none is in doubt because of another one's record."""
    running = [
        RecordProducer(kafka, client_id="test", delivery_timeout=seconds) for _ in range(count)
    ]
    try:
        yield running
    finally:
        await asyncio.gather(*(producer.close(0) for producer in running))


@dataclass
class Ledger:
    """What was said of each record, by its key.

    Attributes:
        stored: And where.
        not_stored: Surely.
        unknown: May be in the log or not.
    """

    stored: dict[str, int] = field(default_factory=dict)
    not_stored: set[str] = field(default_factory=set)
    unknown: set[str] = field(default_factory=set)

    async def send(self, producer: RecordProducer, topic: str, size: int) -> None:
        """Send a record with a key of its own, and write down what is said of it."""
        key = uuid.uuid4().hex
        try:
            stored = await producer.send(Record(topic, key.encode(), bytes(size)))
        except DeliveryError as error:
            (self.not_stored if error.stored == "no" else self.unknown).add(key)
        else:
            self.stored[key] = stored.offset


@dataclass(frozen=True)
class Harm:
    """One harm about the hand-over of some records.

    Attributes:
        fault: What the proxy does.
        ahead: Before the hand-over, when the statistics have told of whatever was sent before;
            otherwise after it.
        breaking: Whether the connections that are open are broken.
    """

    fault: str
    ahead: bool
    breaking: bool

    def begin(self, proxy) -> None:
        proxy.fault = self.fault
        if self.breaking:
            proxy.break_all()


async def go_through(
    harm: Harm, proxy, send: Callable[[int], Awaitable[object]], chance: random.Random
) -> None:
    """Do a harm at a random moment, and undo it when all records have been answered."""
    await send(100)
    if harm.ahead:
        await asyncio.sleep(STATISTICS_SECONDS)
        harm.begin(proxy)
        await asyncio.sleep(chance.uniform(0, 0.05))
    sending = asyncio.ensure_future(send(chance.choice([100, 100_000, 1_500_000])))
    await asyncio.sleep(chance.uniform(0, 0.03))
    if not harm.ahead:
        harm.begin(proxy)
    await sending
    proxy.break_all()
    proxy.fault = "none"


@pytest.mark.parametrize(
    "rounds",
    [
        pytest.param(1, id="once each"),
        pytest.param(10, id="often", marks=[pytest.mark.full, pytest.mark.timeout(1200)]),
    ],
)
def test_what_is_called_not_stored_is_not_in_the_log(kafka, rounds):
    """Never, whatever was lost on the way and when; and what is stored is there once."""
    seed = int.from_bytes(os.urandom(4))
    chance, ledger, topic = random.Random(seed), Ledger(), kafka.make_topic()  # noqa: S311

    async def scenario() -> None:
        async with producers(kafka.proxied, 8, 1.2) as running:

            async def send(size: int) -> None:
                await asyncio.gather(*(ledger.send(each, topic, size) for each in running))

            for harm in itertools.starmap(Harm, itertools.product(HARMS, *[[True, False]] * 2)):
                for _ in range(rounds):
                    await go_through(harm, kafka.proxy, send, chance)

    asyncio.run(scenario())
    log = kafka.log(topic)
    keys = set(log.values())
    print(  # noqa: T201  # pytest shows it with -rP; the documents hold what it says
        f"seed {seed}: {len(ledger.stored)} stored, {len(ledger.not_stored)} not stored, "
        f"{len(ledger.unknown)} unknown, {len(ledger.unknown & keys)} of them in the log"
    )
    assert ledger.not_stored & keys == set()
    assert {key: offset for offset, key in log.items() if key in ledger.stored} == ledger.stored
    assert len(keys) == len(log)  # nothing twice
    assert keys <= ledger.stored.keys() | ledger.unknown
    # Otherwise nothing was tried: some never left, some were stored without an answer.
    assert ledger.not_stored
    assert ledger.unknown & keys


@pytest.mark.parametrize("fault", ["lose answers", "break on answer"])
def test_an_acknowledgement_that_is_cut_brings_no_duplicate(kafka, fault):
    """The record is sent again, and the receipt names the one place where it is."""
    ledger, topic = Ledger(), kafka.make_topic()

    async def scenario() -> None:
        async with producers(kafka.proxied, 1, 10.0) as (producer,):
            await ledger.send(producer, topic, 100)
            for _ in range(5):
                kafka.proxy.fault = fault
                sends = [ledger.send(producer, topic, 100_000) for _ in range(4)]
                answers = asyncio.gather(*sends)
                await asyncio.sleep(0.3)
                kafka.proxy.fault = "none"
                kafka.proxy.break_all()
                await answers

    asyncio.run(scenario())
    assert {key: offset for offset, key in kafka.log(topic).items()} == ledger.stored
    assert (len(ledger.stored), ledger.not_stored, ledger.unknown) == (21, set(), set())


async def until_refused(kafka, topic: str) -> None:
    """Wait until the broker does what it has been told: that takes it a moment."""
    async with producers(kafka.direct, 1, 20.0) as (producer,):
        with contextlib.suppress(DeliveryError):
            while True:
                await producer.send(Record(topic, b"probe", bytes(9_000)))


def test_a_refusal_of_a_record_that_is_in_the_log_is_in_doubt(kafka):
    """Stored, its answer lost, and refused when it is sent again: nobody may call it not stored."""
    topic = kafka.make_topic()

    async def scenario() -> DeliveryError:
        async with producers(kafka.proxied, 1, 20.0) as (producer,):
            await producer.send(Record(topic, b"before", bytes(100)))
            kafka.proxy.fault = "lose answers"
            sending = asyncio.ensure_future(producer.send(Record(topic, b"refused", bytes(9_000))))
            while "refused" not in (await asyncio.to_thread(kafka.log, topic)).values():  # noqa: ASYNC110
                await asyncio.sleep(0.05)
            await asyncio.to_thread(kafka.limit_records, topic, 1_000)
            await until_refused(kafka, topic)
            kafka.proxy.fault = "none"
            kafka.proxy.break_all()
            with pytest.raises(DeliveryError) as caught:
                await sending
            return caught.value

    error = asyncio.run(scenario())
    assert (error.stored, error.refused, error.reason) == (
        "unknown",
        "record",
        "MSG_SIZE_TOO_LARGE",
    )
    keys = [key for key in kafka.log(topic).values() if key != "probe"]
    assert keys == ["before", "refused"]


def test_a_refusal_at_the_first_try_is_certain_and_quick(kafka):
    """Sent once and refused: it is not in the log, and that is told before any time-out."""
    topic = kafka.make_topic()
    kafka.limit_records(topic, 1_000)

    async def scenario() -> tuple[DeliveryError, float]:
        await until_refused(kafka, topic)
        async with producers(kafka.proxied, 1, 20.0) as (producer,):
            await producer.send(Record(topic, b"before", bytes(100)))
            began = asyncio.get_running_loop().time()
            with pytest.raises(DeliveryError) as caught:
                await producer.send(Record(topic, b"refused", bytes(9_000)))
            return caught.value, asyncio.get_running_loop().time() - began

    error, took = asyncio.run(scenario())
    assert (error.stored, error.refused, error.reason) == ("no", "record", "MSG_SIZE_TOO_LARGE")
    assert took < 5.0
    keys = [key for key in kafka.log(topic).values() if key != "probe"]
    assert keys == ["before"]


def test_an_outage_costs_only_those_whose_time_is_over(kafka):
    """What was sent later in it is stored once, by another producer, and nothing twice."""
    ledger, topic = Ledger(), kafka.make_topic()
    seconds, every, count = 5.0, 0.5, 12

    async def scenario() -> None:
        async with producers(kafka.proxied, 1, seconds) as (producer,):
            await ledger.send(producer, topic, 100)
            await asyncio.sleep(STATISTICS_SECONDS)
            kafka.proxy.fault = "refuse"
            kafka.proxy.break_all()

            async def send(after: float) -> None:
                await asyncio.sleep(after)
                await ledger.send(producer, topic, 100)

            sending = [asyncio.create_task(send(number * every)) for number in range(count)]
            await asyncio.wait(sending[:1])  # the first is given up, and the broker comes back
            kafka.proxy.fault = "none"
            await asyncio.gather(*sending)

    asyncio.run(scenario())
    log = kafka.log(topic)
    told = (
        f"{len(ledger.stored)} stored, {len(ledger.not_stored)} not, {len(ledger.unknown)} unknown"
    )
    print(told)  # noqa: T201  # pytest shows it with -rP; the documents hold what it says
    assert {key: offset for offset, key in log.items() if key in ledger.stored} == ledger.stored
    assert len(set(log.values())) == len(log)  # nothing twice
    assert ledger.not_stored.isdisjoint(log.values())
    assert len(ledger.stored) > count // 2
