"""The recogniser killed again and again while it works: every accepted utterance gets its text."""

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from speech_lib.events import TextRecognizedEvent
from speech_lib.events.codec import decode
from speech_lib.events.schemas import schema_text
from speech_lib.kafka.headers import INPUT_EVENT_ID
from speech_lib.kafka.records import ReceivedRecord
from speech_tools import stack
from speech_tools.protocol import audio, client
from support import whole_topic
from support.waiting import until

ROOT = Path(__file__).parents[2]
SPEECH = audio.load(ROOT / "samples" / "go-forward-ten-meters.raw").pcm
BATCH = 20
FIRST_TEXT_SECONDS = 60
"""A member that was killed is missed for 10 s, and only then do others get its partitions."""
ALL_TEXTS_SECONDS = 180


async def speak(url: str, chance: random.Random) -> list[dict]:
    """Have a batch of short pieces of speech accepted; return the receipts."""
    pieces = [_piece(chance) for _ in range(BATCH)]
    outcomes = [await client.stream(url, pcm, paced=False) for pcm in pieces]
    assert {each.final["status"] for each in outcomes} == {"accepted"}
    return [each.final for each in outcomes]


def _piece(chance: random.Random) -> bytes:
    begin = 2 * chance.randrange(len(SPEECH) // 4)
    return SPEECH[begin : begin + 2 * chance.randrange(8_000, 24_000)]


class Texts:
    """The topic of the texts, read whole each time."""

    def __init__(self, cluster, topic: str) -> None:
        self._kafka = cluster.kafka
        self._topic = topic

    def count(self) -> int:
        return whole_topic.count(self._kafka, self._topic)

    def read(self) -> list[ReceivedRecord]:
        return whole_topic.read(self._kafka, self._topic)

    def inputs(self) -> Counter[tuple[str, str]]:
        """Return how many texts each utterance has, by its correlation id and event id."""
        return Counter((each.key.decode(), each.headers[INPUT_EVENT_ID]) for each in self.read())

    def wait_for_one_more(self, before: int) -> None:
        until(lambda: self.count() > before, seconds=FIRST_TEXT_SECONDS)

    def wait_for_all(self, wanted: set[tuple[str, str]]) -> None:
        until(lambda: wanted <= self.inputs().keys(), seconds=ALL_TEXTS_SECONDS, every=0.5)


def kill_while_working(
    cluster, number: int, folder: Path, topics, texts: Texts, chance: random.Random
) -> None:
    """Run a recogniser until it has stored a text, and a little longer; then kill it."""
    env = {
        "KAFKA_BOOTSTRAP_SERVERS": cluster.bootstrap_servers,
        "SCHEMA_REGISTRY_URL": cluster.registry_url,
        "OPS_PORT": "0",
        "ASR_WORKERS": "1",
        "ASR_ENGINE": "pocketsphinx",
        **topics,
    }
    before = texts.count()
    with stack.Process(f"recogniser-{number}", "speech_asr", env, folder) as process:
        process.wait_for(event="ready")
        texts.wait_for_one_more(before)
        time.sleep(chance.uniform(0, 0.3))
        process.signal(signal.SIGKILL)
        assert process.wait(10) == -signal.SIGKILL


def trace(cluster, topics, correlation_id: str) -> dict:
    """Return what `speech trace` says."""
    addresses = ["--bootstrap-servers", cluster.bootstrap_servers]
    addresses += ["--registry", cluster.registry_url]
    done = subprocess.run(  # noqa: S603 - our own script
        [sys.executable, "-m", "speech_tools", "trace", correlation_id, "--json", *addresses],
        check=False,
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, **topics},
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)


@pytest.mark.parametrize("kills", [2, pytest.param(10, marks=pytest.mark.full)])
def test_every_accepted_utterance_gets_its_text(
    cluster, start_gateway, topics, tmp_path, chance, kills
):
    """At least one text each, the same where there are more, and the trace shows it once."""
    texts = Texts(cluster, topics["TOPIC_ASR_TEXT"])
    receipts: list[dict] = []
    with start_gateway() as gateway:
        for number in range(kills):
            receipts += asyncio.run(speak(gateway.url, chance))
            kill_while_working(cluster, number, tmp_path, topics, texts, chance)
            assert len(texts.inputs()) < len(receipts), "there was nothing left to do"
    accepted = {(each["correlation_id"], each["event_id"]) for each in receipts}
    with stack.recogniser(cluster, tmp_path, topics):
        texts.wait_for_all(accepted)
    found = texts.inputs()
    repeats = sum(found.values()) - len(found)
    print(f"{len(accepted)} utterances, {kills} kills, {repeats} repeats")  # noqa: T201
    assert found.keys() == accepted
    assert whole_topic.count(cluster.kafka, topics["TOPIC_DEAD_LETTER"]) == 0
    said = {(each.key, each.headers[INPUT_EVENT_ID], words(each)) for each in texts.read()}
    assert len(said) == len(accepted)
    for (correlation_id, _), count in found.most_common(2):
        results = trace(cluster, topics, correlation_id)["results"]
        assert [result["repeats"] for result in results] == [count - 1]


def words(record: ReceivedRecord) -> str:
    """Return what was heard."""
    schema = schema_text(TextRecognizedEvent.event_type)
    return decode(TextRecognizedEvent, record.value, schema).payload.text
