"""The one-shot of deployments: which topics it makes, and how it ends."""

import subprocess
import sys

import pytest
from speech_lib.kafka.admin import DAY_MS, TopicSpec
from speech_lib.topics import TopicsEnvironment

GIB = 1024**3
SERVERS = {"KAFKA_BOOTSTRAP_SERVERS": "kafka:9092"}


def test_the_topics_of_the_pipeline():
    """Utterances and texts are kept for a day, dead letters for a week; none is packed."""
    assert TopicsEnvironment.load(SERVERS).specs() == [
        TopicSpec("speech.audio.ingress", DAY_MS, 6, uncompressed=True),
        TopicSpec("speech.asr.text", DAY_MS, 6, uncompressed=True),
        TopicSpec("speech.audio.ingress.dlq", 7 * DAY_MS, 6, uncompressed=True),
    ]


def test_names_and_partitions_come_from_the_environment():
    """Each topic can have another name, and all can have more partitions."""
    names = {"TOPIC_AUDIO_INGRESS": "a", "TOPIC_ASR_TEXT": "b", "TOPIC_DEAD_LETTER": "c"}
    environ = {**SERVERS, **names, "TOPIC_PARTITIONS": "12"}
    assert TopicsEnvironment.load(environ).specs() == [
        TopicSpec("a", DAY_MS, 12, uncompressed=True),
        TopicSpec("b", DAY_MS, 12, uncompressed=True),
        TopicSpec("c", 7 * DAY_MS, 12, uncompressed=True),
    ]


def test_a_bound_by_size_is_for_each_topic():
    """As dead letters and texts fill the same disk."""
    environ = {**SERVERS, "TOPIC_RETENTION_BYTES": str(GIB)}
    assert {spec.retention_bytes for spec in TopicsEnvironment.load(environ).specs()} == {GIB}


@pytest.mark.pipeline
def test_the_program_makes_the_topics(broker):
    """`python -m speech_lib.topics` ends with 0 once they are there, also a second time."""
    names = [broker.new_name() for _ in range(3)]
    variables = ("TOPIC_AUDIO_INGRESS", "TOPIC_ASR_TEXT", "TOPIC_DEAD_LETTER")
    environ = {
        "KAFKA_BOOTSTRAP_SERVERS": broker.kafka.bootstrap_servers,
        **dict(zip(variables, names, strict=True)),
    }
    codes = [run_program(environ).returncode for _ in range(2)]
    assert codes == [0, 0]
    assert [broker.describe(name)[1]["retention.ms"] for name in names] == [
        "86400000",
        "86400000",
        "604800000",
    ]


@pytest.mark.pipeline
def test_the_program_says_what_is_wrong_with_the_environment():
    """It ends with 2 and one line that names the variables."""
    ended = run_program({"TOPIC_PARTITIONS": "0"})
    assert (ended.returncode, ended.stdout, ended.stderr) == (
        2,
        "",
        (
            "topics: KAFKA_BOOTSTRAP_SERVERS: required, expected host:port, or several separated "
            "by commas; TOPIC_PARTITIONS: expected a whole number from 1 to 1000, got 0\n"
        ),
    )


def run_program(environ: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "speech_lib.topics"],
        env=environ,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )


@pytest.mark.pipeline
def test_program_stopped_before_it_has_made_the_topics_does_not_say_so():
    """Whoever waits for the topics must not take an end without them for success."""
    program = subprocess.Popen(
        [sys.executable, "-m", "speech_lib.topics"],
        env={"KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1"},
        stdout=subprocess.PIPE,
        text=True,
    )
    with program:
        assert program.stdout is not None
        assert '"waiting"' in program.stdout.readline()
        program.terminate()
        assert program.wait(20) == 1
