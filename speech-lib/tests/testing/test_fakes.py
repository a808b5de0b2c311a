"""The doubles: as the real adapters in what a service sees of them."""

import asyncio
import inspect

import pytest
from speech_lib.errors import (
    BrokerUnavailable,
    DeliveryError,
    RegistryUnavailable,
    SchemaNotFound,
    SchemaRefused,
)
from speech_lib.kafka.consumer import RecordConsumer
from speech_lib.kafka.producer import RecordProducer
from speech_lib.kafka.records import Record, Stored
from speech_lib.kafka.registry import SchemaRegistry
from speech_lib.testing.fakes import FakeBroker, FakeConsumer, FakeProducer, FakeRegistry

PARTITION = ("t", 0)


def record(value: bytes = b"v") -> Record:
    """Return a record for the topic t."""
    return Record("t", b"k", value, {"h": "1"})


def consumer(broker: FakeBroker, **callbacks) -> FakeConsumer:
    """Return a member of the group g."""
    return FakeConsumer(broker, group_id="g", topics=["t"], **callbacks)


@pytest.mark.parametrize(
    ("real", "fake"),
    [
        (RecordProducer, FakeProducer),
        (RecordConsumer, FakeConsumer),
        (SchemaRegistry, FakeRegistry),
    ],
)
def test_fake_has_the_methods_of_the_real_one(real: type, fake: type) -> None:
    """Every public method has the same parameters and result, so a service cannot tell."""
    for name, method in inspect.getmembers(real, inspect.isfunction):
        if not name.startswith("_"):
            assert inspect.signature(getattr(fake, name)) == inspect.signature(method), name


def test_records_go_from_producer_to_consumer() -> None:
    """In the order in which they were stored, with offsets that count up."""
    broker = FakeBroker()
    producer, reader = FakeProducer(broker), consumer(broker)
    stored = [asyncio.run(producer.send(record(value))) for value in (b"1", b"2")]
    read = [(r.offset, r.key, r.value, dict(r.headers)) for r in reader.poll(0)]
    assert stored == [Stored("t", 0, 0), Stored("t", 0, 1)]
    assert read == [(0, b"k", b"1", {"h": "1"}), (1, b"k", b"2", {"h": "1"})]
    assert reader.poll(0) == []


def test_refused_record_is_not_in_the_log() -> None:
    """The test says what the next send raises; the one after succeeds."""
    broker = FakeBroker()
    producer = FakeProducer(broker)
    producer.errors = [DeliveryError(stored="no", refused="record", reason="MSG_SIZE_TOO_LARGE")]
    with pytest.raises(DeliveryError, match="MSG_SIZE_TOO_LARGE"):
        asyncio.run(producer.send(record()))
    asyncio.run(producer.send(record(b"2")))
    assert [stored.value for stored in broker.records("t")] == [b"2"]


def test_closed_gate_holds_a_record_back() -> None:
    """Until it opens, nothing is stored."""

    async def scenario() -> tuple[int, Stored]:
        broker = FakeBroker()
        producer = FakeProducer(broker)
        producer.gate.clear()
        sending = asyncio.ensure_future(producer.send(record()))
        await asyncio.sleep(0)
        before = len(broker.records("t"))
        producer.gate.set()
        return before, await sending

    assert asyncio.run(scenario()) == (0, Stored("t", 0, 0))


def test_closed_producer_refuses() -> None:
    """As the real one: certainly not stored."""

    async def scenario() -> None:
        producer = FakeProducer(FakeBroker())
        await producer.close(1)
        await producer.send(record())

    with pytest.raises(DeliveryError) as error:
        asyncio.run(scenario())
    assert (error.value.stored, error.value.refused) == ("no", None)


def test_check_raises_what_the_test_asks_for() -> None:
    """Once; then the broker is there."""
    producer = FakeProducer(FakeBroker())
    producer.errors = [BrokerUnavailable("_TRANSPORT")]
    with pytest.raises(BrokerUnavailable):
        producer.check("t", 1)
    producer.check("t", 1)


def test_group_goes_on_where_it_committed() -> None:
    """What was read and not committed comes again after a rebalance, and to the next member."""
    broker = FakeBroker()
    for value in (b"0", b"1", b"2"):
        broker.append(record(value))
    changes: list[tuple[str, frozenset[tuple[str, int]]]] = []
    reader = consumer(
        broker,
        on_assign=lambda partitions: changes.append(("assign", partitions)),
        on_revoke=lambda partitions: changes.append(("revoke", partitions)),
    )
    offsets = [[r.offset for r in reader.poll(0, max_records=2)]]
    reader.commit({PARTITION: 1})
    reader.revoke()
    offsets.append([r.offset for r in reader.poll(0)])
    reader.close()
    offsets.append([r.offset for r in consumer(broker).poll(0)])
    assert offsets == [[0, 1], [1, 2], [1, 2]]
    assert changes == [
        (what, frozenset({PARTITION})) for what in ("assign", "revoke", "assign", "revoke")
    ]
    assert broker.committed["g"] == {PARTITION: 1}


def test_who_wants_no_record_gets_none() -> None:
    """The group is served all the same, and nothing is lost."""
    broker = FakeBroker()
    broker.append(record())
    gained: list[object] = []
    reader = consumer(broker, on_assign=gained.append)
    assert (reader.poll(0, 0), gained) == ([], [frozenset({PARTITION})])
    assert [r.offset for r in reader.poll(0)] == [0]


def test_registry_keeps_the_rules_of_the_real_one() -> None:
    """One id a schema; what is incompatible is refused, what is unknown not found."""
    registry = FakeRegistry()
    with pytest.raises(SchemaNotFound):
        registry.lookup("s", '"long"')
    assert registry.register("s", '"long"') == registry.lookup("s", '"long"') == 1
    assert registry.schema(1) == '"long"'
    with pytest.raises(SchemaRefused):
        registry.register("s", '"int"')
    with pytest.raises(SchemaNotFound):
        registry.schema(2)


def test_registry_can_be_out_of_reach() -> None:
    """Every call fails then."""
    registry = FakeRegistry()
    registry.available = False
    with pytest.raises(RegistryUnavailable):
        registry.register("s", '"long"')
