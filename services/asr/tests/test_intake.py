"""From a record's value to an utterance, or to the reason why there is none."""

import json

import fastavro
import pytest
from speech_asr import intake
from speech_asr.errors import Reason, Unprocessable
from speech_asr.intake import Utterance
from speech_lib.errors import RegistryUnavailable
from speech_lib.events import AudioInputEvent, TextRecognized, TextRecognizedEvent, codec
from speech_lib.events.schemas import schema_text
from speech_lib.kafka.registry import EventDeserializer, EventSerializer
from speech_lib.testing.fakes import FakeRegistry

PCM = b"\x01\x00\x02\x00"


class Topic:
    """A registry that knows both events, and a decoder of the one that is expected."""

    def __init__(self):
        self.registry = FakeRegistry()
        self.decoder = EventDeserializer(self.registry, AudioInputEvent)

    def encode(self, event):
        serializer = EventSerializer(self.registry, "t", type(event), auto_register=True)
        serializer._subject = f"{event.event_type}-value"
        serializer.warm_up()
        return serializer.encode(event)

    def refusal(self, value):
        with pytest.raises(Unprocessable) as caught:
            intake.read(self.decoder, value)
        return caught.value.reason


@pytest.fixture
def topic():
    return Topic()


def test_an_utterance_is_its_ids_and_its_samples(topic, audio_event, wav_file):
    """What the gateway sent comes out, bit for bit."""
    event = audio_event(wav_file(PCM), language_hint="de-CH")
    assert intake.read(topic.decoder, topic.encode(event)) == Utterance(
        event.event_id, event.correlation_id, PCM, "de-CH"
    )


@pytest.mark.parametrize(
    "value",
    [b"", b"\x01", b"{}", b"\x01\x00\x00\x00\x01rest"],
    ids=["empty", "short", "json", "magic"],
)
def test_a_value_without_the_wire_format_is_not_avro(topic, value):
    """Somebody else's producer, or none that knows the registry."""
    assert topic.refusal(value) == Reason.NOT_AVRO


def test_a_body_that_is_cut_short_is_not_avro(topic, audio_event, wav_file):
    """The schema says more than there is."""
    value = topic.encode(audio_event(wav_file(PCM)))
    assert topic.refusal(value[:-3]) == Reason.NOT_AVRO


def test_a_schema_that_the_registry_does_not_know_is_unknown(topic, audio_event, wav_file):
    """Nobody will ever be able to read it."""
    value = topic.encode(audio_event(wav_file(PCM)))
    assert topic.refusal(value[:1] + (9999).to_bytes(4, "big") + value[5:]) == Reason.UNKNOWN_SCHEMA


def test_another_event_is_wrong(topic):
    """A text is no utterance, however well it is written."""
    text = TextRecognizedEvent.new(
        correlation_id="7a1c1a52-6b2b-4d29-9f2b-0d5f4f5a3f10",
        source_service="asr",
        payload=TextRecognized("words", "en-US", 1.0),
    )
    assert topic.refusal(topic.encode(text)) == Reason.WRONG_EVENT


def test_an_event_with_a_value_that_it_does_not_take_is_wrong(topic, audio_event, wav_file):
    """The schema has no word for "a UUID4"; the event has."""
    schema = schema_text("AudioInputEvent")
    number = topic.registry.register("AudioInputEvent-value", schema)
    record = audio_event(wav_file(PCM)).to_record() | {"correlation_id": "mine"}
    header = codec.encode(audio_event(wav_file(PCM)), number)[:5]
    assert topic.refusal(header + _body(schema, record)) == Reason.WRONG_EVENT


def _body(schema, record):
    import io  # noqa: PLC0415

    stream = io.BytesIO()
    fastavro.schemaless_writer(stream, fastavro.parse_schema(json.loads(schema)), record)
    return stream.getvalue()


def test_audio_that_cannot_be_recognised_is_refused_with_its_own_reason(
    topic, audio_event, wav_file
):
    """The event is good; what it carries is not."""
    assert topic.refusal(topic.encode(audio_event(b"none"))) == Reason.NOT_WAV
    stereo = wav_file(PCM, channels=2)
    assert topic.refusal(topic.encode(audio_event(stereo))) == Reason.UNSUPPORTED_FORMAT


def test_a_registry_that_is_away_says_nothing_about_the_record(topic, audio_event, wav_file):
    """The record is to be tried again, not buried."""
    value = topic.encode(audio_event(wav_file(PCM)))
    topic.registry.available = False
    with pytest.raises(RegistryUnavailable):
        intake.read(topic.decoder, value)
