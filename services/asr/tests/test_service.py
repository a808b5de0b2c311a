"""The whole service as a process, between a broker and a registry: `python -m speech_asr`."""

import asyncio
import json
import os
import queue
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import pytest
from confluent_kafka import Consumer, TopicPartition
from pocketsphinx import Decoder
from speech_lib.events import AudioInputEvent, TextRecognizedEvent
from speech_lib.kafka.consumer import RecordConsumer
from speech_lib.kafka.producer import RecordProducer
from speech_lib.kafka.records import Record
from speech_lib.kafka.registry import EventDeserializer, EventSerializer, SchemaRegistry
from speech_lib.kafka.settings import KafkaSettings

WAIT_SECONDS = 60.0
SECOND = 32_000
NOBODY = "127.0.0.1:9"

pytestmark = pytest.mark.timeout(180)  # two decoders on a busy machine take their time


class Service:
    """One running process of the service, and what it has logged."""

    def __init__(self, process):
        self.process = process
        self.lines = []
        self._queue = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        for line in self.process.stdout:
            self._queue.put(json.loads(line))

    def wait_for(self, event):
        """Return the next line of this name."""
        deadline = time.monotonic() + WAIT_SECONDS
        while True:
            line = self._queue.get(timeout=max(0.0, deadline - time.monotonic()))
            self.lines.append(line)
            if line["event"] == event:
                return line

    def stop(self):
        """Ask it to drain and return its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(WAIT_SECONDS)

    def end(self):
        self.process.kill()
        self.process.wait()
        self._reader.join()
        self.process.stdout.close()
        self.process.stderr.close()

    def workers(self):
        """Return the ids of its child processes that have loaded a decoder."""
        pid = self.process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return [int(each) for each in children if b"spawn_main" in _command(each)]


def _command(pid):
    return Path(f"/proc/{pid}/cmdline").read_bytes()


@contextmanager
def service(**variables):
    own = {"OPS_PORT": "0", "ASR_WORKERS": "1", "ASR_ENGINE": "pocketsphinx"}
    environ = {"PATH": os.environ["PATH"]} | own | variables
    running = Service(
        subprocess.Popen(
            [sys.executable, "-m", "speech_asr"],
            env=environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
    )
    try:
        yield running
    finally:
        running.end()


def readiness(port):
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as refused:
        return refused.code, json.load(refused)


class Topics:
    """Topics of one test: what the service reads and writes, and how the test does."""

    def __init__(self, pipeline):
        self.names = {
            "TOPIC_AUDIO_INGRESS": pipeline.make_topic("audio"),
            "TOPIC_ASR_TEXT": pipeline.make_topic("text"),
            "TOPIC_DEAD_LETTER": pipeline.make_topic("dead"),
        }
        self.variables = self.names | {
            "KAFKA_BOOTSTRAP_SERVERS": pipeline.bootstrap_servers,
            "SCHEMA_REGISTRY_URL": pipeline.registry_url,
            "ASR_GROUP_ID": self.names["TOPIC_AUDIO_INGRESS"],
        }
        self._kafka = KafkaSettings(bootstrap_servers=pipeline.bootstrap_servers)
        self.registry = SchemaRegistry(pipeline.registry_url)
        self._audio = EventSerializer(
            self.registry,
            self.names["TOPIC_AUDIO_INGRESS"],
            AudioInputEvent,
            auto_register=True,
        )
        self._audio.warm_up()
        self._texts = EventDeserializer(self.registry, TextRecognizedEvent)
        self._readers = {}

    def encode(self, event):
        return self._audio.encode(event)

    def send(self, *values, **headers):
        """Store values in the topic that the service reads."""

        async def scenario():
            producer = RecordProducer(self._kafka, client_id="test", delivery_timeout=20)
            try:
                for value in values:
                    topic = self.names["TOPIC_AUDIO_INGRESS"]
                    await producer.send(Record(topic, b"key", value, headers))
            finally:
                await producer.close(5)

        asyncio.run(scenario())

    def read(self, name, count):
        """Return the next `count` records of a topic that the service writes."""
        topic = self.names[name]
        if topic not in self._readers:
            self._readers[topic] = RecordConsumer(
                self._kafka, group_id=f"test-{topic}", topics=[topic], client_id="test"
            )
        found, deadline = [], time.monotonic() + WAIT_SECONDS
        while len(found) < count and time.monotonic() < deadline:
            found += self._readers[topic].poll(0.2, count - len(found))
        return found

    def texts(self, count):
        """Return the text of each utterance's correlation id."""
        events = [self._texts.decode(each.value) for each in self.read("TOPIC_ASR_TEXT", count)]
        return {event.correlation_id: event.payload.text for event in events}

    def committed(self):
        """Return the next offset that the service's group would read."""
        group = {"group.id": self.variables["ASR_GROUP_ID"]}
        client = Consumer(self._kafka.client_config() | group)
        try:
            topic = self.names["TOPIC_AUDIO_INGRESS"]
            (found,) = client.committed([TopicPartition(topic, 0)], timeout=WAIT_SECONDS)
            return found.offset
        finally:
            client.close()

    def close(self):
        for reader in self._readers.values():
            reader.close()
        self.registry.close()


@pytest.fixture
def topics(pipeline):
    made = Topics(pipeline)
    yield made
    made.close()


def direct(samples):
    """Return what PocketSphinx says of these samples given directly."""
    decoder = Decoder(logfn=os.devnull)
    decoder.start_utt()
    decoder.process_raw(samples, full_utt=True)
    decoder.end_utt()
    return decoder.hyp().hypstr


@pytest.mark.pipeline
def test_the_text_of_any_recording_is_what_pocketsphinx_says_of_it(
    topics, meters, dashwood, audio_event, wav_file
):
    """Word for word, in any order, with two workers, and nothing of it in the log."""
    spoken = [meters, dashwood, bytes(3 * SECOND), meters, b"", meters]
    expected = {meters: direct(meters), dashwood: direct(dashwood)}
    events = [audio_event(wav_file(samples)) for samples in spoken]
    with service(**topics.variables, ASR_WORKERS="2") as asr:
        asr.wait_for("ready")
        topics.send(*map(topics.encode, events))
        texts = topics.texts(len(events))
        lines = [asr.wait_for("utterance") for _ in events]
    assert texts == {
        event.correlation_id: expected.get(samples, "")
        for event, samples in zip(events, spoken, strict=True)
    }
    assert expected[meters] == "go forward ten meters"
    assert sorted(line["outcome"] for line in lines) == ["recognised"] * 4 + ["silent"] * 2
    logged = json.dumps(asr.lines)
    told = ["meters", "leisure", topics.variables["KAFKA_BOOTSTRAP_SERVERS"], "http://"]
    assert [each for each in told if each in logged] == []


@pytest.mark.pipeline
def test_what_cannot_be_processed_is_buried_and_the_partition_moves_on(
    topics, meters, audio_event, wav_file
):
    """Each kind of bad record has its reason; the good one behind them is recognised."""
    good = audio_event(wav_file(meters))
    value = topics.encode(good)
    poison = {
        "not_avro": b"none",
        "unknown_schema": value[:1] + (2**31 - 1).to_bytes(4, "big") + value[5:],
        "not_wav": topics.encode(audio_event(meters)),
        "unsupported_format": topics.encode(audio_event(wav_file(meters, rate=8_000))),
    }
    texts = EventSerializer(
        topics.registry, topics.names["TOPIC_ASR_TEXT"], TextRecognizedEvent, auto_register=True
    )
    texts.warm_up()
    other = texts._schema_id.to_bytes(4, "big")
    poison["wrong_event"] = value[:1] + other + value[5:]
    with service(**topics.variables) as asr:
        asr.wait_for("ready")
        topics.send(*poison.values(), value, ended_by="done")
        letters = topics.read("TOPIC_DEAD_LETTER", len(poison))
        assert topics.texts(1) == {good.correlation_id: "go forward ten meters"}
    assert {each.headers["dlq_reason"]: each.value for each in letters} == poison
    assert {(each.headers["dlq_offset"], each.headers["dlq_partition"]) for each in letters} == {
        (str(offset), "0") for offset in range(len(poison))
    }
    assert {each.headers["ended_by"] for each in letters} == {"done"}


@pytest.mark.pipeline
@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_a_worker_that_is_killed_is_replaced_and_its_utterance_answered(
    topics, dashwood, audio_event, wav_file
):
    """The consumer stays in its group and nobody has to send the utterance again."""
    event = audio_event(wav_file(dashwood))
    with service(**topics.variables) as asr:
        asr.wait_for("ready")
        for worker in asr.workers():
            os.kill(worker, signal.SIGKILL)
        topics.send(topics.encode(event))
        assert topics.texts(1) == {event.correlation_id: direct(dashwood)}
        asr.wait_for("worker_replaced")
        assert asr.stop() == 0


@pytest.mark.pipeline
def test_what_was_answered_is_committed_when_the_service_has_ended(topics, audio_event, wav_file):
    """Nothing is answered twice because of a stop, dead letters included."""
    silence = topics.encode(audio_event(wav_file(b"")))
    with service(**topics.variables) as asr:
        topics.send(silence, b"none", silence)
        for _ in range(3):
            asr.wait_for("utterance")
        assert asr.stop() == 0
    assert topics.committed() == 3


@pytest.mark.pipeline
def test_a_service_that_is_started_again_goes_on_where_it_was(
    pipeline, topics, meters, audio_event, wav_file
):
    """What came while it was away is answered, and nothing that was before."""
    if not pipeline.real:
        pytest.skip("needs Apache Kafka: the embedded broker keeps a group's seat for 44 s")
    first, second = (audio_event(wav_file(meters)) for _ in range(2))
    with service(**topics.variables) as asr:
        topics.send(topics.encode(first))
        asr.wait_for("utterance")
        assert asr.stop() == 0
    topics.send(topics.encode(second))
    with service(**topics.variables) as asr:
        line = asr.wait_for("utterance")
        assert asr.stop() == 0
    assert (line["correlation_id"], line["offset"]) == (second.correlation_id, 1)


@pytest.mark.pipeline
def test_readiness_follows_the_service(topics):
    """Ready when it can work, not ready with a reason while it stops."""
    with service(**topics.variables) as asr:
        port = asr.wait_for("listening")["ops_port"]
        asr.wait_for("ready")
        assert readiness(port) == (200, {"status": "ready"})
        assert asr.stop() == 0


@pytest.mark.pipeline
def test_how_late_the_event_loop_is_can_be_seen(topics):
    """Measured from the start on, on the operations port."""
    with service(**topics.variables) as asr:
        port = asr.wait_for("listening")["ops_port"]
        asr.wait_for("ready")
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
            page = answer.read().decode()
    counted = re.search(r"^speech_asr_loop_lag_seconds_count (\S+)$", page, re.MULTILINE)
    assert counted is not None
    assert float(counted[1]) > 0


@pytest.mark.pipeline
def test_what_waits_unread_can_be_seen(topics, audio_event, wav_file):
    """For the partition that it reads, as soon as it has read; beside it that the service works."""
    with service(**topics.variables) as asr:
        port = asr.wait_for("listening")["ops_port"]
        topics.send(topics.encode(audio_event(wav_file(b""))))
        asr.wait_for("utterance")
        page, deadline = "", time.monotonic() + 10
        while 'consumer_lag_records{partition="0"} 0.0' not in page:
            assert time.monotonic() < deadline, page
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
                page = answer.read().decode()
    assert "speech_asr_ready 1.0" in page


@pytest.mark.pipeline
def test_without_a_broker_it_waits_and_says_so():
    """No traceback, no address; a signal ends the wait."""
    variables = {"KAFKA_BOOTSTRAP_SERVERS": NOBODY, "SCHEMA_REGISTRY_URL": f"http://{NOBODY}"}
    with service(**variables) as asr:
        port = asr.wait_for("listening")["ops_port"]
        waiting = asr.wait_for("waiting")
        status, answer = readiness(port)
        assert asr.stop() == 0
        complaints = asr.process.stderr.read()
    assert (waiting["what"], waiting["error"]) == ("broker", "BrokerUnavailable")
    assert (status, answer["status"]) == (503, "not_ready")
    assert set(answer["reasons"]) == {"broker", "schema", "texts", "dead_letters", "group"}
    assert NOBODY not in json.dumps(asr.lines) + complaints
    assert "Traceback" not in complaints


@pytest.mark.parametrize(
    ("variables", "line"),
    [
        ({"ASR_WORKERS": "0"}, "asr: ASR_WORKERS: expected a whole number from 1 to 64, got 0\n"),
        (
            {"ASR_ENGINE": "sherpa", "ASR_MODEL_FAMILY": "moonshine"},
            "asr: ASR_MODEL: required with ASR_ENGINE=sherpa, expected a model\n",
        ),
    ],
    ids=["wrong number", "no model"],
)
def test_a_wrong_environment_is_one_line_and_exit_code_2(variables, line):
    """The line names the variable and what it takes."""
    needed = {"KAFKA_BOOTSTRAP_SERVERS": NOBODY, "SCHEMA_REGISTRY_URL": f"http://{NOBODY}"}
    with service(**needed, **variables) as asr:
        assert asr.process.wait(WAIT_SECONDS) == 2
        assert asr.process.stderr.read() == line


def test_an_engine_that_cannot_be_loaded_is_one_line_and_exit_code_2(tmp_path):
    """No broker is asked before."""
    with service(
        KAFKA_BOOTSTRAP_SERVERS=NOBODY,
        SCHEMA_REGISTRY_URL=f"http://{NOBODY}",
        ASR_ENGINE="whisper",
        ASR_MODEL=str(tmp_path),
    ) as asr:
        assert asr.process.wait(WAIT_SECONDS) == 2
        complaints = asr.process.stderr.read()
    assert complaints.startswith("asr: ASR_MODEL: expected a Whisper model")
    assert (complaints.count("\n"), str(tmp_path) in complaints) == (1, False)


@pytest.mark.pipeline
def test_a_schema_that_is_not_there_and_may_not_be_made_is_exit_code_3(topics):
    """Waiting would not bring it; the line says which one."""
    with service(**topics.variables, SCHEMA_AUTO_REGISTER="false") as asr:
        assert asr.process.wait(WAIT_SECONDS) == 3
        complaints = asr.process.stderr.read()
    subject = f"{topics.names['TOPIC_ASR_TEXT']}-value"
    assert complaints == f"asr: the registry does not know the schema of {subject}\n"
