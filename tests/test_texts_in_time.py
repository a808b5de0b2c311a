"""Ten people speak at once, and the text of each is there while they still look at the screen.

`-rP` prints the hops.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from speech_tools import stack
from speech_tools.latency.command import app
from support.invoke import invoke

pytestmark = [pytest.mark.full, pytest.mark.timeout(600)]

SPEAKERS = 10
TWO_SECONDS = 2_000
"""In milliseconds, for nine of ten texts, on two cores that have nothing else to do."""


@pytest.fixture
def place(tmp_path: Path, tiny_en: Path) -> Iterator[list[str]]:
    """Run the pipeline with the default model and two workers; yield the options that name it."""
    engine = {"ASR_ENGINE": "whisper", "ASR_MODEL": str(tiny_en), "ASR_WORKERS": "2"}
    with stack.pipeline(tmp_path, stack.MANY_FROM_ONE_ADDRESS, engine) as (kafka, gateway):
        yield [
            *("--url", gateway.url, "--bootstrap-servers", kafka.bootstrap_servers),
            *("--registry", kafka.registry_url),
        ]


def test_ten_speakers_have_their_texts_within_two_seconds(place: list[str], tmp_path: Path) -> None:
    """From the end of what they say, each of ten times 4 s, one utterance after the other."""
    options = ["--clients", SPEAKERS, "--count", 10 * SPEAKERS, "--warm-up", SPEAKERS]
    done = invoke(app, *options, "--seconds", 4, "--out", tmp_path, *place)
    print(done.stdout)  # noqa: T201 - the figures are what one wants to see
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "latency.json").read_text(encoding="utf-8"))
    assert (report["measured"], report["lost"]) == (10 * SPEAKERS, [])
    assert report["hops"]["end to end"]["p90"] <= TWO_SECONDS
