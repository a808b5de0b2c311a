"""From speakers to machines: pure arithmetic on `constants.toml`. Used by `command`.

A speaker speaks without a pause, one utterance after another. That is more than people do. So count
those who speak at once, and not those who are there.
"""

import math
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib.resources import files
from typing import Any, Final

from speech_lib.events import BYTES_PER_SECOND

CONSTANTS: Final[dict[str, Any]] = tomllib.loads(
    files(__package__).joinpath("constants.toml").read_text(encoding="utf-8")
)
ENGINES: Final[dict[str, dict[str, float]]] = CONSTANTS["engines"]
MILLION: Final = 1_000_000


def constant(name: str) -> float:
    """Return a constant's value; its unit is beside it in the file."""
    return float(CONSTANTS[name]["value"])


@dataclass(frozen=True, slots=True)
class Demand:
    """What is asked for.

    Attributes:
        speakers: How many speak at once.
        utterance_seconds: How long an utterance is.
        retention_hours: How long the audio is kept on Kafka.
        replication: How many brokers have a copy of it.
        engine: What recognises it, one of `ENGINES`.
    """

    speakers: int
    utterance_seconds: float = 5.0
    retention_hours: float = 24.0
    replication: int = 3
    engine: str = "tiny.en"

    @property
    def audio_bytes(self) -> float:
        """Bytes of audio a second."""
        return self.speakers * BYTES_PER_SECOND

    @property
    def utterances(self) -> float:
        """How many a second; each is a connection."""
        return self.speakers / self.utterance_seconds

    @property
    def stored_bytes(self) -> float:
        """Bytes a second that producers send."""
        return self.audio_bytes + self.utterances * constant("record_overhead")


@dataclass(frozen=True, slots=True)
class Needs:
    """What it takes. Memory and disk are in 10^9 bytes, bandwidth is in 10^6 bits a second."""

    gateways: int
    gateway_cores: float
    gateway_memory_gb: float
    edges: int
    edge_mbit: float
    connections_per_second: float
    brokers: int
    kafka_mb_per_second: float
    disk_gb: float
    recognisers: int
    recogniser_cores: int
    recogniser_memory_gb: float
    partitions: int


def needs(demand: Demand) -> Needs:
    """Return what so many speakers need, each part at its planned share."""
    busy, workers = constant("busy"), int(constant("recogniser_workers"))
    engine = ENGINES[demand.engine]
    cores = demand.audio_bytes / MILLION * constant("gateway_cpu") / 1_000 / busy
    gateways = max(
        math.ceil(demand.speakers / busy / constant("gateway_clients")), math.ceil(cores)
    )
    clients = demand.speakers * constant("gateway_client") + gateways * constant("gateway_idle")
    recognisers = math.ceil(demand.speakers / speakers_of_a_recogniser(demand.engine))
    processes = workers + 1
    memory = constant("recogniser_service") + processes * engine["memory"]
    seconds = demand.retention_hours * 3_600
    return Needs(
        gateways=gateways,
        gateway_cores=cores,
        gateway_memory_gb=clients * 2**20 / 1e9,
        edges=math.ceil(demand.speakers / constant("edge_clients")),
        edge_mbit=demand.audio_bytes * 8 / MILLION * constant("wire_overhead"),
        connections_per_second=demand.utterances,
        brokers=max(
            demand.replication,
            math.ceil(demand.stored_bytes / MILLION / constant("broker_bytes") / busy),
        ),
        kafka_mb_per_second=demand.stored_bytes / MILLION,
        disk_gb=demand.stored_bytes * seconds * demand.replication / 1e9,
        recognisers=recognisers,
        recogniser_cores=recognisers * workers,
        recogniser_memory_gb=recognisers * memory / 1_000,
        partitions=max(int(constant("default_partitions")), recognisers),
    )


def speakers_of_a_recogniser(engine: str) -> float:
    """Return how many speakers one recogniser keeps up with."""
    return constant("recogniser_workers") * constant("busy") / ENGINES[engine]["cpu"]


@dataclass(frozen=True, slots=True)
class Limit:
    """Something that holds up to a number of speakers, and what to do beyond it."""

    speakers: float
    what: str
    then: str


def limits(demand: Demand) -> list[Limit]:
    """Return what gives way as the number of speakers grows, the first one first."""
    each = speakers_of_a_recogniser(demand.engine)
    stored = demand.stored_bytes / demand.speakers / MILLION
    broker = constant("broker_bytes") * constant("busy") / stored
    core = constant("busy") * 1_000 / constant("gateway_cpu") * MILLION / BYTES_PER_SECOND
    partitions, most = constant("default_partitions"), constant("topic_partitions")
    found = [
        Limit(constant("default_connections"), "MAX_CONNECTIONS of one gateway", "raise it"),
        Limit(each, "one recogniser", "more recognisers, by what waits (KEDA)"),
        Limit(each * partitions, "six partitions", "TOPIC_PARTITIONS, at least as many"),
        Limit(core, "the event loop of one gateway", "more gateways"),
        Limit(constant("edge_clients"), "one edge", "several edges behind a balancer"),
        Limit(broker * demand.replication, f"{demand.replication} brokers", "more brokers"),
        Limit(each * most, "partitions of one topic", "faster recognisers, or cells"),
        Limit(
            broker * constant("cluster_brokers"),
            "one Kafka cluster",
            "cells, each a whole pipeline",
        ),
    ]
    return sorted(found, key=lambda limit: limit.speakers)


def passed(demand: Demand) -> Iterator[Limit]:
    """Yield the limits that so many speakers pass, and a tenth of them do not."""
    for limit in limits(demand):
        if demand.speakers / 10 <= limit.speakers < demand.speakers:
            yield limit


def powers_of_ten(demand: Demand) -> Iterator[Demand]:
    """Yield the same demand for 10 speakers, and so on to a million."""
    for power in range(1, 7):
        yield replace(demand, speakers=10**power)
