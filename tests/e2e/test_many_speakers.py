"""300 people speak at once through the edge and three gateways; `-rP` prints what that took.

docs/scaling.md has the figures, beside what `speech capacity` says.
"""

import asyncio
import random
import secrets
import ssl
import statistics
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from threading import Event, Thread
from typing import Any, NamedTuple

import pytest
from speech_lib.events import BYTES_PER_SECOND
from speech_lib.kafka.settings import KafkaSettings
from speech_tools.capacity.model import Demand, needs
from speech_tools.speakers import Tape
from support import compose, whole_topic
from support.fleet import Door, Speakers

pytestmark = [pytest.mark.full, pytest.mark.timeout(1_800, method="signal")]

KEY = secrets.token_urlsafe(32)
REPLICAS, LIMIT = 3, 150
MIB = 1 << 20
TRUST = ssl._create_unverified_context()  # noqa: S323 - whom it speaks to is not what is tested


@pytest.fixture(scope="module")
def stack(bring_up_fleet) -> Any:
    """Return three gateways of 150 clients each behind the edge, and no recogniser."""
    return bring_up_fleet(
        REPLICAS,
        EDGE_API_KEY=KEY,
        MAX_CONNECTIONS=str(LIMIT),
        TOPIC_RETENTION_BYTES=str(512 * MIB),
    )


class Sample(NamedTuple):
    """What a container has taken by a moment."""

    at: float
    cpu_seconds: float
    memory: int


@contextmanager
def watched(stack: Any) -> Iterator[dict[str, list[Sample]]]:
    """Collect processor time and memory of the containers meanwhile."""
    seen: dict[str, list[Sample]] = defaultdict(list)
    enough = Event()

    def look() -> None:
        while not enough.wait(5):
            label = f"com.docker.compose.project={stack.name}"
            for each in stack.client.containers.list(filters={"label": label}):
                told = each.stats(stream=False, one_shot=True)
                cpu = told["cpu_stats"]["cpu_usage"]["total_usage"] / 1e9
                memory = told["memory_stats"].get("usage", 0)
                seen[each.name].append(Sample(time.monotonic(), cpu, memory))

    watching = Thread(target=look)
    watching.start()
    try:
        yield seen
    finally:
        enough.set()
        watching.join()


@pytest.mark.parametrize("speakers", [30, 300])
def test_they_are_all_heard(stack, request, speakers):
    """Each utterance is accepted, and on the topic once; nobody is cut."""
    seconds = request.config.getoption("--speaker-seconds")
    door = Door(f"wss://localhost:{stack.ports['EDGE_PORT']}/ws/audio", KEY, TRUST)
    kafka = KafkaSettings(bootstrap_servers=f"localhost:{stack.ports['KAFKA_HOST_PORT']}")
    before = whole_topic.count(kafka, "speech.audio.ingress")
    with watched(stack) as seen:
        crowd = asyncio.run(speak(door, speakers, seconds))
    said = len(crowd.operations)
    print(f"{speakers} speakers, {seconds} s, refused {dict(crowd.refusals)}")  # noqa: T201
    print(*figures(crowd, seen), needs(Demand(speakers)), sep="\n")  # noqa: T201
    assert crowd.accepted == said
    assert crowd.closes == {1000: said}
    assert whole_topic.count(kafka, "speech.audio.ingress") - before == said


def figures(crowd: Speakers, seen: Mapping[str, list[Sample]]) -> Iterator[str]:
    """Yield how long they waited beyond what they said, and what each container took."""
    said = crowd.operations
    beyond = sorted(each.seconds - len(each.pcm) / BYTES_PER_SECOND for each in said)
    late = beyond[-max(1, len(said) // 100)]
    usual = statistics.median(beyond)
    yield f"{len(said)} utterances, beyond the speech P50 {usual:.2f} s, P99 {late:.2f} s"
    for name, samples in sorted(seen.items()):
        first, *_, last = samples
        cores = (last.cpu_seconds - first.cpu_seconds) / (last.at - first.at)
        memory = max(each.memory for each in samples) / MIB
        yield f"{name}: {cores:.2f} cores, {memory:.0f} MiB"


async def speak(door: Door, speakers: int, seconds: float) -> Speakers:
    """Let them speak for so long, some five seconds at a time."""
    tape = Tape.of(compose.ROOT / "samples")
    crowd = Speakers(door, random.Random(speakers), seconds=(4, 6), tape=tape)  # noqa: S311
    task = asyncio.create_task(crowd.speak(speakers))
    await asyncio.sleep(seconds)
    crowd.stop()
    await task
    return crowd
