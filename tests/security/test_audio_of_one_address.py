"""An address that sends audio as fast as it can, and what others feel of it.

Against a gateway in a process of its own, with short utterances, so that the burst is soon over.
"""

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from speech_gateway.wav import HEADER_BYTES
from speech_tools.percentiles import percentiles
from speech_tools.speakers import Kind, say
from support.flood import speak
from support.lone_gateway import LoneGateway, lone_gateway

pytestmark = [
    pytest.mark.security,
    pytest.mark.usefixtures("either_loop"),
    pytest.mark.anyio,
    pytest.mark.timeout(60),
]

UTTERANCE = bytes(65_536)
AT_ONCE = 10
BYTES_A_SECOND = 20 * 32_000
GREEDY, LIVE = "127.0.7.1", "127.0.7.2"
GREEDY_CLIENTS = 4
SPEAKERS = 10
REFUSED_SECONDS = 0.1
FELT_SECONDS = 0.1
A_BUSY_MACHINE = 5.0
"""How much longer things may take where the machine has other work."""


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[LoneGateway]:
    """A gateway with all its own limits but for the length of an utterance, and more slots."""
    settings = {
        "MAX_BUFFER_BYTES": str(len(UTTERANCE) + HEADER_BYTES),
        "MAX_CONNECTIONS": "30",
    }
    with lone_gateway(tmp_path, settings) as running:
        yield running


async def send_unpaced(url: str, deadline: float) -> int:
    """Send utterance after utterance; return the bytes of those that were accepted."""
    stored = 0
    while time.monotonic() < deadline:
        spoken = await say(url, UTTERANCE, paced=False, source=GREEDY)
        if spoken.kind is Kind.REFUSED:
            await asyncio.sleep(REFUSED_SECONDS)  # too many in this second
        else:
            assert spoken.kind is Kind.ACCEPTED, spoken
            stored += len(UTTERANCE)
    return stored


async def speak_live(url: str, pcm: bytes) -> float:
    """Speak at the pace of speech; return the seconds from `done` to the receipt."""
    spoken = await say(url, pcm, paced=True, source=LIVE)
    assert spoken.kind is Kind.ACCEPTED, spoken
    return spoken.answered - spoken.said


async def test_an_address_stores_no_more_than_its_share(gateway: LoneGateway) -> None:
    """Its burst, then twenty times the pace of speech; nobody is cut, and others feel nothing."""
    began = time.monotonic()
    greedy = [
        asyncio.create_task(send_unpaced(gateway.url, began + 3)) for _ in range(GREEDY_CLIENTS)
    ]
    live = [asyncio.create_task(speak_live(gateway.url, bytes(64_000))) for _ in range(SPEAKERS)]
    took = await speak(gateway.url, 2.5)
    waited = await asyncio.gather(*live)
    stored = sum(await asyncio.gather(*greedy))
    seconds = time.monotonic() - began
    allowed = AT_ONCE * len(UTTERANCE) + BYTES_A_SECOND * seconds + GREEDY_CLIENTS * len(UTTERANCE)
    median = percentiles(took, [0.5])[0]
    print(  # noqa: T201 - for the document
        f"{stored / 1e6:.2f} of {allowed / 1e6:.2f} MB in {seconds:.1f} s; another address: "
        f"P50 {1000 * median:.1f} ms; live: at most {1000 * max(waited):.1f} ms"
    )
    assert 0 < stored <= allowed
    assert median < FELT_SECONDS * A_BUSY_MACHINE
    assert max(waited) < FELT_SECONDS * A_BUSY_MACHINE
