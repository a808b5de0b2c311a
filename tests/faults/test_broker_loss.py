"""Ten clients speak while brokers are paused, killed and cut off: nothing accepted is lost."""

import time
from dataclasses import dataclass
from functools import partial

import pytest
from support.cluster import Cluster, Fault
from support.crowd import Crowd
from support.ledger import Findings
from support.waiting import until

TOPIC = "speech.audio.ingress"
STEADY = 20
FELT_SECONDS = 2.0
MUTE_TRIES = 3
LONGEST_SECONDS = 10 + 2 + 5
"""The delivery timeout, 2 s, and what a handshake may wait besides on a busy machine."""


@dataclass(frozen=True)
class Injury:
    """What was done to a broker, and when."""

    name: str
    began: float
    ended: float

    def felt_by(self, crowd: Crowd) -> int:
        """Return how many utterances of that time were slow, or not accepted."""
        return sum(
            each.began < self.ended
            and each.ended > self.began
            and (each.seconds > FELT_SECONDS or each.verdict.value != "accepted")
            for each in crowd.operations
        )


class Injector:
    """Injures one broker after the other, with everything well in between."""

    def __init__(self, cluster: Cluster, crowd: Crowd) -> None:
        self.injuries: list[Injury] = []
        self._cluster = cluster
        self._crowd = crowd

    def lose(self, name: str, fault: Fault) -> None:
        """Take the busiest leader away until others have taken over, and a little longer."""
        leader = self._prepare()
        began = time.monotonic()
        with fault(leader):
            self._cluster.wait_until_replaced(TOPIC, leader)
            time.sleep(self._crowd.chance.uniform(0, 3))
        self._recover(name, began)

    def mute(self, name: str, fault: Fault) -> None:
        """Keep the answers of the busiest leader from the gateway for some seconds.

        Once more where nobody felt it, because the lead had gone to another broker meanwhile.
        """
        for _ in range(MUTE_TRIES):
            leader = self._prepare()
            began = time.monotonic()
            with fault(leader):
                time.sleep(self._crowd.chance.uniform(3, 6))
            if self._recover(name, began).felt_by(self._crowd):
                return

    def _prepare(self) -> int:
        self._cluster.wait_until_whole(TOPIC)
        wait_for_more(self._crowd, STEADY)
        return self._cluster.busiest(TOPIC)

    def _recover(self, name: str, began: float) -> Injury:
        self._cluster.wait_until_whole(TOPIC)
        wait_for_more(self._crowd, STEADY)
        self.injuries.append(Injury(name, began, time.monotonic()))
        return self.injuries[-1]


def wait_for_more(crowd: Crowd, count: int) -> None:
    """Return when so many more utterances have been accepted."""
    enough = crowd.accepted + count
    until(lambda: crowd.accepted >= enough, seconds=120)


@pytest.mark.parametrize(
    ("rounds", "utterances"),
    [
        pytest.param(1, 100, id="100-utterances"),
        pytest.param(2, 500, id="500-utterances", marks=pytest.mark.full),
    ],
)
def test_accepted_is_stored_once_whatever_happens_to_brokers(
    cluster, chance, meanwhile, reckon, earlier, rounds, utterances
):
    """The leader paused, killed, cut off, its answers reset or swallowed: no promise is broken."""
    crowd = Crowd(cluster.gateway_url, chance)
    injector = Injector(cluster, crowd)
    steps = rounds * [
        partial(injector.lose, "paused", cluster.paused),
        partial(injector.lose, "killed", cluster.killed),
        partial(injector.lose, "cut off", cluster.cut_off),
        partial(injector.mute, "answers reset", cluster.answers_reset),
        partial(injector.mute, "answers swallowed", cluster.answers_swallowed),
    ]
    chance.shuffle(steps)

    def inject() -> None:
        for step in steps:
            step()
        wait_for_more(crowd, max(0, utterances - crowd.accepted))

    meanwhile(crowd, inject)
    findings, figures = reckon(crowd.operations, TOPIC, others=earlier)
    felt = [(each.name, each.felt_by(crowd)) for each in injector.injuries]
    print("utterances that felt it:", felt)  # noqa: T201
    assert findings == Findings()
    assert figures.accepted >= utterances
    assert {name for name, _ in felt} == {name for name, count in felt if count}
    assert figures.longest_seconds < LONGEST_SECONDS
