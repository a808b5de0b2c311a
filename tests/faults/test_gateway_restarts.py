"""The gateway stopped and killed while ten clients speak: what was accepted is in the log, once."""

import random
import signal
import time
from dataclasses import replace
from functools import partial

import pytest
from support.crowd import Crowd
from support.ledger import Findings
from support.waiting import until

GRACE_SECONDS = 40
"""What compose gives the gateway to end."""
SPOKEN_BETWEEN = 15


def wait_for_more(crowd: Crowd) -> None:
    """Return when a few more utterances have been accepted."""
    enough = crowd.accepted + SPOKEN_BETWEEN
    until(lambda: crowd.accepted >= enough, seconds=60, every=0.02)


class Restarts:
    """Runs one gateway after the other on the same port, ending each by a signal under load."""

    def __init__(self, start, crowd: Crowd, chance: random.Random) -> None:
        self.codes: list[int] = []
        self.longest_seconds = 0.0
        self._start = start
        self._crowd = crowd
        self._chance = chance

    def end_each_by(self, number: signal.Signals, times: int) -> None:
        """Start, wait until clients are served, end; so many times. The last one goes on."""
        for _ in range(times):
            with self._start() as process:
                wait_for_more(self._crowd)
                time.sleep(self._chance.uniform(0, 0.3))
                began = time.monotonic()
                process.signal(number)
                self.codes.append(process.wait(GRACE_SECONDS))
                self.longest_seconds = max(self.longest_seconds, time.monotonic() - began)
        with self._start():
            wait_for_more(self._crowd)


@pytest.fixture
def crowd(gateway_port, chance) -> Crowd:
    """Return ten clients who hardly pause: somebody is always being served."""
    return Crowd(f"ws://127.0.0.1:{gateway_port}/ws/audio", chance, pause_seconds=0.1)


@pytest.fixture
def restarts(start_gateway, gateway_port, crowd, chance) -> Restarts:
    """Return what restarts the gateway of that crowd."""
    return Restarts(partial(start_gateway, PORT=str(gateway_port)), crowd, chance)


@pytest.mark.parametrize("times", [2, pytest.param(20, marks=pytest.mark.full)])
def test_sigterm_under_load_leaves_nobody_unanswered(
    restarts, crowd, meanwhile, reckon, topics, times
):
    """Restarted again and again, the gateway answers all that it took, and exits 0 in time."""
    meanwhile(crowd, lambda: restarts.end_each_by(signal.SIGTERM, times))
    findings, figures = reckon(crowd.operations, topics["TOPIC_AUDIO_INGRESS"])
    print(f"longest until its end: {restarts.longest_seconds:.2f} s")  # noqa: T201
    assert findings == Findings()
    assert restarts.codes == [0] * times
    assert figures.accepted >= (times + 1) * SPOKEN_BETWEEN
    assert figures.unknown == 0


@pytest.mark.parametrize("times", [2, pytest.param(10, marks=pytest.mark.full)])
def test_sigkill_under_load_loses_nothing_accepted(
    restarts, crowd, meanwhile, reckon, topics, times
):
    """Whoever was cut off has no answer, and may be in the log; all others are as told."""
    meanwhile(crowd, lambda: restarts.end_each_by(signal.SIGKILL, times))
    findings, figures = reckon(crowd.operations, topics["TOPIC_AUDIO_INGRESS"])
    assert replace(findings, unanswered=()) == Findings()
    assert 0 < figures.unanswered <= crowd.clients * times
    assert restarts.codes == [-signal.SIGKILL] * times
    assert figures.accepted >= (times + 1) * SPOKEN_BETWEEN
