"""The broker stores, and its word is cut on the way back: no retry stores anything twice.

That answers are cut is seen from beside: the log grows while no client has an answer.
"""

import asyncio
import time
from collections import Counter

import pytest
from support import whole_topic
from support.cluster import SERVICES, gateway_proxy
from support.crowd import Crowd
from support.ledger import Findings, Verdict
from support.waiting import until

TOPIC = "speech.audio.ingress"
CLIENTS = 10
ALL = [gateway_proxy(broker) for broker in SERVICES]
DELIVERY_SECONDS = 10
REQUEST_SECONDS = DELIVERY_SECONDS / 3
"""After which the gateway gives an unanswered request up and tries again."""


async def ten(crowd: Crowd) -> list[Verdict]:
    """Let ten speak at once; return what they know in the end."""
    said = await asyncio.gather(*(crowd.say(crowd.utterance()) for _ in range(CLIENTS)))
    return [each.verdict for each in said]


async def ten_while_cut(cluster, crowd: Crowd, cut, seconds: float) -> tuple[int, list[Verdict]]:
    """Let ten speak while every answer is cut, for some seconds, or until they all know.

    Returns:
        How many were in the log by the end of the cut, and what the ten know.
    """
    # Connections are opened while all is well: through new ones nothing would come to the brokers.
    assert await ten(crowd) == [Verdict.ACCEPTED] * CLIENTS
    stored, accepted = whole_topic.count(cluster.kafka, TOPIC), crowd.accepted
    with cut(*ALL):
        began = time.monotonic()
        speaking = asyncio.create_task(ten(crowd))
        await asyncio.to_thread(wait_for_more, cluster, stored)
        await asyncio.wait([speaking], timeout=began + seconds - time.monotonic())
        assert crowd.accepted == accepted, "answers came through"
        grown = await asyncio.to_thread(whole_topic.count, cluster.kafka, TOPIC) - stored
    return grown, await speaking


def wait_for_more(cluster, before: int) -> None:
    """Return as soon as the topic has grown."""
    until(
        lambda: whole_topic.count(cluster.kafka, TOPIC) > before, seconds=DELIVERY_SECONDS, every=0
    )


@pytest.mark.parametrize("times", [1, pytest.param(3, marks=pytest.mark.full)])
def test_resets_leave_no_duplicate(cluster, chance, reckon, earlier, ready, times):
    """Connections that break as soon as an answer comes: stored once, and told when they last."""
    crowd = Crowd(cluster.gateway_url, chance)

    async def rounds() -> list[tuple[int, list[Verdict]]]:
        cut = cluster.toxiproxy.answers_reset
        return [await ten_while_cut(cluster, crowd, cut, seconds=2) for _ in range(times)]

    answers = asyncio.run(rounds())
    findings, _ = reckon(crowd.operations, TOPIC, others=earlier)
    print("stored while the answers were cut:", [grown for grown, _ in answers])  # noqa: T201
    assert findings == Findings()
    assert [verdicts for _, verdicts in answers] == [[Verdict.ACCEPTED] * CLIENTS] * times


@pytest.mark.parametrize(
    ("seconds", "possible"),
    [
        pytest.param(
            REQUEST_SECONDS + 1, {Verdict.ACCEPTED}, id="shorter-than-the-delivery-timeout"
        ),
        pytest.param(
            DELIVERY_SECONDS + 2,
            {Verdict.UNKNOWN, Verdict.FAILED},
            id="longer-than-the-delivery-timeout",
        ),
    ],
)
def test_black_hole_leaves_no_duplicate(cluster, chance, reckon, earlier, ready, seconds, possible):
    """Answers swallowed while requests are tried again: stored once, and told what is known."""
    crowd = Crowd(cluster.gateway_url, chance)
    cut = cluster.toxiproxy.answers_swallowed
    grown, verdicts = asyncio.run(ten_while_cut(cluster, crowd, cut, seconds))
    findings, figures = reckon(crowd.operations, TOPIC, others=earlier)
    print("stored while nothing was answered:", grown, Counter(verdicts))  # noqa: T201
    assert findings == Findings()
    assert set(verdicts) <= possible
    assert figures.longest_seconds < DELIVERY_SECONDS + 2
