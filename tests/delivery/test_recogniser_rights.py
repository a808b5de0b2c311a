"""A recogniser on Apache Kafka that loses a right, and gets it back."""

import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AclOperation, ResourceType
from speech_gateway.wav import wrap
from speech_lib.events import AudioInput, AudioInputEvent
from speech_lib.events.codec import encode
from speech_lib.events.schemas import schema_text
from speech_lib.kafka.registry import SchemaRegistry, subject_of
from speech_lib.testing.registry_server import RegistryServer
from speech_tools import stack
from support.operations import readiness
from support.waiting import until

ADMIN_SECONDS = 20.0
PATIENCE_SECONDS = 90.0
"""Some 10 s pass before a member that is not heard of any more knows it."""
Right = tuple[ResourceType, str, AclOperation]


@dataclass
class Scene:
    """Topics, a registry, and a recogniser that runs or may be started."""

    kafka: object
    registry_url: str
    folder: Path
    audio: str
    text: str
    dead: str
    process: stack.Process | None = None
    port: int = 0

    @property
    def read_group(self) -> Right:
        return ResourceType.GROUP, self.audio, AclOperation.READ

    @property
    def read_audio(self) -> Right:
        return ResourceType.TOPIC, self.audio, AclOperation.READ

    @property
    def write_text(self) -> Right:
        return ResourceType.TOPIC, self.text, AclOperation.WRITE

    @property
    def write_dead(self) -> Right:
        return ResourceType.TOPIC, self.dead, AclOperation.WRITE

    @property
    def all_rights(self) -> list[Right]:
        seen = [(ResourceType.TOPIC, name, AclOperation.DESCRIBE) for name in self.names]
        return [*seen, self.read_group, self.read_audio, self.write_text, self.write_dead]

    @property
    def names(self) -> list[str]:
        return [self.audio, self.text, self.dead]

    def start(self) -> None:
        guarded = self.kafka.guarded
        env = {
            "KAFKA_BOOTSTRAP_SERVERS": guarded.bootstrap_servers,
            "KAFKA_SECURITY_PROTOCOL": "SASL_PLAINTEXT",
            "KAFKA_SASL_MECHANISM": guarded.sasl.mechanism,
            "KAFKA_SASL_USERNAME": guarded.sasl.username,
            "KAFKA_SASL_PASSWORD": guarded.sasl.password.get_secret_value(),
            "SCHEMA_REGISTRY_URL": self.registry_url,
            "TOPIC_AUDIO_INGRESS": self.audio,
            "TOPIC_ASR_TEXT": self.text,
            "TOPIC_DEAD_LETTER": self.dead,
            "ASR_GROUP_ID": self.audio,
            "ASR_WORKERS": "1",
            "ASR_ENGINE": "pocketsphinx",
            "OPS_PORT": "0",
        }
        self.process = stack.Process("recogniser", "speech_asr", env, self.folder)
        self.port = self.process.wait_for(event="listening")["ops_port"]

    def speak(self, utterances: int) -> set[str]:
        """Store utterances of silence, and return their correlation ids."""
        registry = SchemaRegistry(self.registry_url)
        subject = subject_of(self.audio)
        schema_id = registry.register(subject, schema_text(AudioInputEvent.event_type))
        registry.close()
        ids = [str(uuid.uuid4()) for _ in range(utterances)]
        payload = AudioInput(wrap(bytes(9_600)))
        for each in ids:
            event = AudioInputEvent.new(
                correlation_id=each, source_service="gateway", payload=payload
            )
            self.write(encode(event, schema_id))
        return set(ids)

    def write(self, value: bytes) -> None:
        producer = Producer(self.kafka.direct.client_config())
        producer.produce(self.audio, value)
        assert producer.flush(ADMIN_SECONDS) == 0

    def until(self, condition: Callable[[], bool]) -> None:
        """Wait for a condition; where it does not come, tell what the recogniser lacks."""
        try:
            until(condition, seconds=PATIENCE_SECONDS)
        except AssertionError:
            pytest.fail(str(self.reasons()))

    def said(self) -> set[str]:
        """Return the correlation ids of the texts."""
        return set(self.kafka.log(self.text).values())

    def reasons(self) -> dict[str, str]:
        """Return why the recogniser is not ready; empty where it is."""
        return readiness(self.port)[1].get("reasons", {})


@pytest.fixture
def scene(kafka, tmp_path) -> Iterator[Scene]:
    names = [kafka.make_topic() for _ in range(3)]
    with RegistryServer() as registry:
        made = Scene(kafka, registry.url, tmp_path, *names)
        try:
            yield made
        finally:
            if made.process is not None:
                made.process.stop()


@pytest.fixture
def rights(kafka, scene):
    """Give the recogniser all that it needs; return what takes and gives."""
    kafka.give(*scene.all_rights)
    return kafka


@pytest.mark.parametrize("seconds", [3, pytest.param(60, marks=pytest.mark.full)])
def test_texts_wait_for_the_right_to_write_them(scene, rights, seconds):
    """Not ready meanwhile; in the end every utterance has its text, and no dead letter."""
    scene.start()
    before = scene.speak(5)
    scene.until(lambda: scene.said() == before)
    rights.take(scene.write_text)
    meanwhile = scene.speak(20)
    scene.until(lambda: scene.reasons() == {"texts": "TOPIC_AUTHORIZATION_FAILED"})
    time.sleep(seconds)  # how long the right is away is what is tried
    assert scene.reasons() == {"texts": "TOPIC_AUTHORIZATION_FAILED"}
    rights.give(scene.write_text)
    after = scene.speak(5)
    scene.until(lambda: scene.said() == before | meanwhile | after)
    scene.until(lambda: scene.reasons() == {})
    assert scene.kafka.log(scene.dead) == {}


def test_dead_letters_wait_for_the_right_to_write_them(scene, rights):
    """They have no other place; the utterances behind them are heard when there is room."""
    scene.start()
    rights.take(scene.write_dead)
    scene.write(b"none")
    scene.until(lambda: scene.reasons() == {"dead_letters": "TOPIC_AUTHORIZATION_FAILED"})
    rights.give(scene.write_dead)
    spoken = scene.speak(5)
    scene.until(lambda: scene.said() == spoken)
    scene.until(lambda: scene.reasons() == {})
    assert len(scene.kafka.log(scene.dead)) == 1


def test_a_group_that_may_not_be_joined_shows(scene, rights):
    """With the group's error; ready when it may be joined, and as long as it may."""
    refused = {"group": "GROUP_AUTHORIZATION_FAILED"}
    rights.take(scene.read_group)
    scene.start()
    scene.until(lambda: scene.reasons() == refused)
    rights.give(scene.read_group)
    scene.until(lambda: scene.reasons() == {})
    rights.take(scene.read_group)
    scene.until(lambda: scene.reasons() == refused)
    rights.give(scene.read_group)
    spoken = scene.speak(1)
    scene.until(lambda: scene.said() == spoken)
    assert scene.reasons() == {}


def test_a_topic_that_may_not_be_read_shows(scene, rights):
    """Also where nothing is said meanwhile, and that it may be read again."""
    scene.start()
    scene.until(lambda: scene.reasons() == {})
    rights.take(scene.read_audio)
    scene.until(lambda: scene.reasons() == {"group": "TOPIC_AUTHORIZATION_FAILED"})
    rights.give(scene.read_audio)
    scene.until(lambda: scene.reasons() == {})
    spoken = scene.speak(1)
    scene.until(lambda: scene.said() == spoken)
