"""The reader of texts: what it looks at, whom it tells, and what it does when it cannot read."""

import asyncio
import threading
from collections.abc import Container, Mapping
from dataclasses import dataclass, field
from typing import Self

import pytest
from speech_gateway.errors import NoText
from speech_gateway.results import Results
from speech_gateway.testing import until
from speech_gateway.utterance import Answer, Text
from speech_lib.errors import BrokerUnavailable, EventError, RegistryUnavailable
from speech_lib.events import TextRecognized, TextRecognizedEvent
from speech_lib.kafka.records import Partition, ReceivedRecord

pytestmark = pytest.mark.anyio

MINE, OTHER = "7d5a1c3e-7a51-4f0a-9f0e-0c6f3d6f1b52", "0b0f6d2c-5a5e-4bb1-8f0c-5d1f7a1b9e11"
DEAD = "speech.audio.ingress.dlq"


def record(key: str, value: bytes, topic: str = "speech.asr.text", offset: int = 7):
    return ReceivedRecord(topic, 1, offset, key.encode(), value, {}, 0)


def event_of(correlation_id: str) -> TextRecognizedEvent:
    return TextRecognizedEvent.new(
        correlation_id=correlation_id,
        source_service="asr",
        payload=TextRecognized("go forward", "en", 0.5),
    )


@dataclass
class Decoder:
    """Decodes by a table; what is not in it fails as the table's last word says."""

    events: dict[bytes, TextRecognizedEvent]
    failure: Exception = field(default_factory=lambda: EventError("no text"))
    asked: list[bytes] = field(default_factory=list)

    def decode(self, value: bytes) -> TextRecognizedEvent:
        self.asked.append(value)
        if value not in self.events:
            raise self.failure
        return self.events[value]


class Tail:
    """Hands out batches, filtered as the real one does; an error in their place is raised."""

    def __init__(self, positions: Mapping[Partition, int], *batches: object) -> None:
        self.positions = {**positions, ("t", 0): len(batches)}
        self._batches = list(batches)
        self.closed = False

    def poll(self, _timeout: float, wanted: Container[bytes]) -> list[ReceivedRecord]:
        if not self._batches:
            threading.Event().wait(0.01)
            return []
        batch = self._batches.pop(0)
        if isinstance(batch, Exception):
            raise batch
        return [each for each in batch if each.key in wanted]

    def close(self) -> None:
        self.closed = True


class Run:
    """`Results` over these tails, one after the other; and what it told and reported."""

    def __init__(self, decoder: Decoder, *runs: tuple[object, ...]) -> None:
        self.told: list[Answer] = []
        self.reports: list[tuple[bool, str]] = []
        self.begun: list[Mapping[Partition, int]] = []
        self._runs = list(runs)
        self.results = Results(
            self._open, decoder, DEAD, lambda ok, reason: self.reports.append((ok, reason))
        )

    def _open(self, positions: Mapping[Partition, int]) -> Tail:
        self.begun.append(dict(positions))
        return Tail(positions, *(self._runs.pop(0) if self._runs else ()))

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self.results.run())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


TEXT = event_of(MINE)
EXPECTED = Text("go forward", "en", 0.5, TEXT.event_id, "speech.asr.text", 1, 7)


async def test_only_the_text_that_is_expected_is_decoded_and_told():
    """All others are looked at by their keys alone."""
    decoder = Decoder({b"mine": TEXT})
    run = Run(decoder, ([record(OTHER, b"other"), record(MINE, b"mine"), record(MINE, b"again")],))
    run.results.expect(MINE, run.told.append)
    async with run:
        await until(lambda: run.told)
    assert run.told == [EXPECTED]
    assert decoder.asked == [b"mine"]


async def test_a_dead_letter_says_that_there_is_no_text():
    """Its value is the audio, and is not looked at."""
    decoder = Decoder({})
    run = Run(decoder, ([record(MINE, b"", DEAD)],))
    run.results.expect(MINE, run.told.append)
    async with run:
        await until(lambda: run.told)
    assert (run.told, decoder.asked) == ([NoText.NOT_RECOGNIZED], [])


async def test_what_is_forgotten_is_not_told():
    """A session that has ended leaves nothing behind."""
    run = Run(Decoder({b"mine": TEXT}), ([record(MINE, b"mine")],))
    run.results.expect(MINE, run.told.append)()
    async with run:
        await until(lambda: run.reports)
        await asyncio.sleep(0)
    assert run.told == []


@pytest.mark.parametrize("value", [b"no text of ours", b"another's"])
async def test_a_record_that_is_not_the_text_leaves_the_wait(value: bytes):
    """Whoever can write on the topic cannot end the wait by a record that is none."""
    decoder = Decoder({b"another's": event_of(OTHER), b"mine": TEXT})
    run = Run(decoder, ([record(MINE, value)], [record(MINE, b"mine")]))
    run.results.expect(MINE, run.told.append)
    async with run:
        await until(lambda: run.told)
    assert run.told == [EXPECTED]


async def test_a_text_waits_for_a_registry_that_is_away():
    """Its schema may be new, and the registry restarting."""
    decoder = Decoder({}, RegistryUnavailable("away"))
    run = Run(decoder, ([record(MINE, b"mine")],))
    run.results.expect(MINE, run.told.append)
    async with run:
        await until(lambda: len(decoder.asked) > 1)
        decoder.events[b"mine"] = TEXT
        await until(lambda: run.told)
    assert run.told == [EXPECTED]


async def test_after_an_error_it_reads_on_where_it_was(monkeypatch):
    """So nothing is missed, and the operator is told meanwhile."""
    monkeypatch.setattr("speech_gateway.results._AGAIN_SECONDS", 0.0)
    run = Run(
        Decoder({b"mine": TEXT}), (BrokerUnavailable("_TRANSPORT"),), ([record(MINE, b"mine")],)
    )
    run.results.expect(MINE, run.told.append)
    async with run:
        await until(lambda: run.told)
    assert run.reports[:3] == [(True, ""), (False, "_TRANSPORT"), (True, "")]
    assert run.begun[:2] == [{}, {("t", 0): 1}]
