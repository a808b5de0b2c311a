"""The way of one utterance: to its text, or to the dead letters with a reason."""

import asyncio
import itertools
import threading
from dataclasses import replace

import pytest
from speech_asr.engine import Recognition
from speech_asr.errors import Reason, Unprocessable
from speech_asr.handler import Handler, Topics
from speech_asr.metrics import Metrics
from speech_asr.outbox import Outbox
from speech_asr.traces import Traces
from speech_lib.errors import DeliveryError
from speech_lib.events import AudioInputEvent, TextRecognized, TextRecognizedEvent
from speech_lib.kafka.records import ReceivedRecord, Record
from speech_lib.kafka.registry import EventDeserializer, EventSerializer
from speech_lib.testing.fakes import FakeBroker, FakeProducer, FakeRegistry
from speech_lib.testing.spans import KeptSpans
from structlog.testing import capture_logs

AUDIO, TEXT, DEAD = "audio", "text", "dead"
WORDS = "my card number is one two three"
TRACE = "0af7651916cd43dd8448eb211c80319c"
TRACEPARENT = f"00-{TRACE}-b7ad6b7169203331-01"


class ScriptedRecogniser:
    """Hears what the test says, or raises it."""

    def __init__(self, outcome):
        self.outcome = outcome
        self.samples = []
        self.sources = []
        self.hints = []

    async def recognise(self, samples, on_begun, source, hint):
        self.samples.append(samples)
        self.sources.append(source)
        self.hints.append(hint)
        on_begun()
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome, 0.5


class Scene:
    """A handler between a topic of audio and the topics of its results."""

    def __init__(self, outcome=None):
        self.broker = FakeBroker()
        self.registry = FakeRegistry()
        self.recogniser = ScriptedRecogniser(outcome or Recognition(WORDS, "en-US", 0.75))
        self.metrics = Metrics()
        self.errors = []
        self.sink = KeptSpans()
        self.texts = EventDeserializer(self.registry, TextRecognizedEvent)

    def serializer(self, topic, event_class):
        serializer = EventSerializer(self.registry, topic, event_class, auto_register=True)
        serializer.warm_up()
        return serializer

    def put(self, event, **headers):
        value = self.serializer(AUDIO, AudioInputEvent).encode(event)
        headers = {"correlation_id": event.correlation_id} | headers
        return self.put_raw(value, event.correlation_id.encode(), **headers)

    def put_raw(self, value, key=b"key", **headers):
        stored = self.broker.append(Record(AUDIO, key, value, headers))
        return self.broker.records(AUDIO)[stored.offset]

    def handle(self, record):
        """Handle a record and return the lines of the log."""

        async def scenario():
            producer = FakeProducer(self.broker)
            producer.errors.extend(self.errors)
            handler = Handler(
                EventDeserializer(self.registry, AudioInputEvent),
                self.recogniser,
                self.serializer(TEXT, TextRecognizedEvent),
                Outbox(producer, lambda *_: None),
                Topics(TEXT, DEAD),
                self.metrics,
                Traces(self.sink, "group"),
            )
            await handler.handle(record)

        with capture_logs() as lines:
            asyncio.run(scenario())
        return lines

    def count(self, name, **labels):
        return self.metrics.registry.get_sample_value(name, labels)


@pytest.fixture
def event(audio_event, wav_file):
    return audio_event(wav_file(bytes(16_000)))  # half a second


def test_the_text_is_stored_with_the_id_of_its_utterance(event):
    """Key, headers and event carry the correlation id; the samples came whole to the engine."""
    scene = Scene()
    scene.handle(scene.put(event, traceparent=TRACEPARENT))
    (record,) = scene.broker.records(TEXT)
    text = scene.texts.decode(record.value)
    assert text == TextRecognizedEvent(
        event_id=text.event_id,
        correlation_id=event.correlation_id,
        timestamp=text.timestamp,
        source_service="asr",
        payload=TextRecognized(WORDS, "en-US", 0.75),
    )
    assert text.event_id != event.event_id
    assert record.key == event.correlation_id.encode()
    times = [int(record.headers[name]) for name in ("fetched_ms", "recognised_ms")]
    assert times == sorted(times)
    assert record.headers == {
        "correlation_id": event.correlation_id,
        "traceparent": record.headers["traceparent"],
        "event_type": "TextRecognizedEvent",
        "input_event_id": event.event_id,
        "input_partition": "0",
        "input_offset": "0",
        "fetched_ms": str(times[0]),
        "recognised_ms": str(times[1]),
    }
    assert scene.recogniser.samples == [bytes(16_000)]


def test_the_recogniser_knows_whose_utterance_it_is(event):
    """As the gateway says in a header, so that each source gets its share."""
    scene = Scene()
    scene.handle(scene.put(event, source="0123456789abcdef"))
    scene.handle(scene.put(event))
    assert scene.recogniser.sources == ["0123456789abcdef", ""]


@pytest.mark.parametrize("hint", [None, "de-CH", "tlh", "no language at all", "é" * 1_000])
def test_the_recogniser_is_told_what_language_is_claimed(audio_event, wav_file, hint):
    """Whatever it is: there is a text."""
    scene = Scene()
    scene.handle(scene.put(audio_event(wav_file(bytes(320)), language_hint=hint)))
    assert scene.recogniser.hints == [hint]
    assert len(scene.broker.records(TEXT)) == 1


@pytest.mark.parametrize("sent", [TRACEPARENT, None, "nonsense"])
def test_the_trace_goes_on_in_a_span_of_its_own(event, sent):
    """A trace that came with the record is continued; otherwise one begins here."""
    scene = Scene()
    scene.handle(scene.put(event, **({"traceparent": sent} if sent else {})))
    version, trace, span, flags = scene.broker.records(TEXT)[0].headers["traceparent"].split("-")
    assert (version, len(trace), len(span), flags) == ("00", 32, 16, "01")
    assert (trace == TRACE, span == "b7ad6b7169203331") == (sent == TRACEPARENT, False)


def spans(scene):
    """Return what each span tells of its place: name, parent, link, error; parents by name."""
    names = {each.context.span_id: each.name for each in scene.sink.spans}
    names["b7ad6b7169203331"] = "who made it"

    def name(context):
        return names[context.span_id] if context else None

    told = scene.sink.spans
    return [(name(each.parent), name(each.link), each.name, each.error) for each in told]


def test_what_was_done_is_told_in_spans(event):
    """Recognising and sending are parts of the processing; the text carries on who sent it."""
    scene = Scene()
    scene.handle(scene.put(event, traceparent=TRACEPARENT))
    assert spans(scene) == [
        ("process audio", None, "recognise", None),
        ("process audio", None, "send text", None),
        ("who made it", "who made it", "process audio", None),
    ]
    sent = next(each for each in scene.sink.spans if each.name == "send text")
    (record,) = scene.broker.records(TEXT)
    assert record.headers["traceparent"] == sent.context.header()


def test_a_refused_text_and_its_dead_letter_are_told_in_spans(event):
    """What the broker refused is an error, as is the whole; the dead letter was sent well."""
    scene = Scene()
    scene.errors = [DeliveryError(stored="no", refused="record", reason="MSG_SIZE_TOO_LARGE")]
    scene.handle(scene.put(event, traceparent=TRACEPARENT))
    assert spans(scene) == [
        ("process audio", None, "recognise", None),
        ("process audio", None, "send text", "result_refused"),
        ("process audio", "who made it", "send dead", None),
        ("who made it", "who made it", "process audio", "result_refused"),
    ]


def test_one_line_tells_of_an_utterance_without_its_words(event):
    """Who operates the service sees how fast it is, and nothing of what people say."""
    scene = Scene()
    record = scene.put(event)
    assert scene.handle(record) == [
        {
            "event": "utterance",
            "log_level": "info",
            "correlation_id": event.correlation_id,
            "partition": 0,
            "offset": record.offset,
            "audio_seconds": 0.5,
            "recognise_ms": 500,
            "real_time_factor": 1.0,
            "outcome": "recognised",
        }
    ]


def test_silence_and_an_empty_file_are_results_too(audio_event, wav_file):
    """Whoever waits for the text learns that there is none."""
    scene = Scene(Recognition("", "en-US", 0.0))
    (line,) = scene.handle(scene.put(audio_event(wav_file(b""))))
    assert (line["outcome"], line["audio_seconds"], line["real_time_factor"]) == (
        "silent",
        0.0,
        None,
    )
    assert scene.count("speech_asr_real_time_factor_count") == 0  # of nothing there is none
    (record,) = scene.broker.records(TEXT)
    assert scene.texts.decode(record.value).payload == TextRecognized("", "en-US", 0.0)


def test_what_is_counted(event, audio_event):
    """Outcomes, reasons, and how long the engine took for how much audio."""
    scene = Scene()
    scene.handle(scene.put(event))
    scene.handle(scene.put(audio_event(b"none")))
    assert scene.count("speech_asr_utterances_total", outcome="recognised") == 1
    assert scene.count("speech_asr_utterances_total", outcome="dead_letter") == 1
    assert scene.count("speech_asr_dead_letters_total", reason="not_wav") == 1
    assert scene.count("speech_asr_dead_letters_total", reason="not_avro") == 0
    assert scene.count("speech_asr_audio_seconds_total") == 0.5
    assert scene.count("speech_asr_recognition_seconds_sum") == 0.5
    assert scene.count("speech_asr_real_time_factor_count") == 1
    assert scene.count("speech_asr_real_time_factor_sum") == 1.0


def test_a_dead_letter_is_the_record_as_it_came_with_its_reason():
    """Whoever looks into it finds where it lay, and can put it back."""
    scene = Scene()
    record = scene.put_raw(b"none", key=b"\xff\x00", ended_by="done", correlation_id="c")
    (line,) = scene.handle(record)
    (letter,) = scene.broker.records(DEAD)
    assert (letter.key, letter.value, letter.headers) == (
        b"\xff\x00",
        b"none",
        {
            "ended_by": "done",
            "correlation_id": "c",
            "dlq_reason": "not_avro",
            "dlq_partition": "0",
            "dlq_offset": str(record.offset),
        },
    )
    assert line == {
        "event": "utterance",
        "log_level": "warning",
        "correlation_id": "c",
        "partition": 0,
        "offset": record.offset,
        "outcome": "dead_letter",
        "reason": "not_avro",
    }
    assert scene.broker.records(TEXT) == ()


def test_a_record_whose_headers_cannot_be_read_is_a_dead_letter_without_them(event):
    """Even if its value is an utterance: nobody could tell where it came from."""
    scene = Scene()
    record = replace(scene.put(event), headers={}, headers_readable=False)
    (line,) = scene.handle(record)
    (letter,) = scene.broker.records(DEAD)
    assert (letter.key, letter.value, letter.headers) == (
        record.key,
        record.value,
        {
            "dlq_reason": "unreadable_headers",
            "dlq_partition": "0",
            "dlq_offset": str(record.offset),
        },
    )
    assert (line["outcome"], line["reason"]) == ("dead_letter", "unreadable_headers")
    assert scene.broker.records(TEXT) == ()


def test_a_dead_letter_that_is_too_large_tells_where_the_record_lay():
    """Neither key nor headers of the record: any of them may be what makes it too large."""
    scene = Scene()
    record = scene.put_raw(b"none", correlation_id="c")
    scene.errors = [DeliveryError(stored="no", refused="record", reason="MSG_SIZE_TOO_LARGE")]
    (line,) = scene.handle(record)
    (letter,) = scene.broker.records(DEAD)
    assert (letter.key, letter.value, letter.headers) == (
        b"",
        b"",
        {
            "dlq_reason": "not_avro",
            "dlq_partition": "0",
            "dlq_offset": str(record.offset),
            "dlq_omitted": "too_large",
        },
    )
    assert (line["outcome"], line["reason"]) == ("dead_letter", "not_avro")


@pytest.mark.parametrize(
    ("outcome", "reason"),
    [
        (Unprocessable(Reason.RECOGNISER_FAILED), "recogniser_failed"),
        (ZeroDivisionError(WORDS), "internal_error"),
        (Recognition(WORDS, "en-US", 7.0), "internal_error"),
    ],
    ids=["given up", "defect", "defect in the result"],
)
def test_what_goes_wrong_with_an_utterance_ends_in_a_dead_letter(event, outcome, reason):
    """Even a defect of ours moves the partition on."""
    scene = Scene(outcome)
    lines = scene.handle(scene.put(event))
    assert [each.headers["dlq_reason"] for each in scene.broker.records(DEAD)] == [reason]
    assert (lines[-1]["outcome"], lines[-1]["reason"]) == ("dead_letter", reason)


def test_a_text_that_the_broker_refuses_for_good_ends_in_a_dead_letter(event):
    """The audio is kept, so that it can be recognised once the text may be written."""
    scene = Scene()
    scene.errors = [DeliveryError(stored="no", refused="record", reason="MSG_SIZE_TOO_LARGE")]
    scene.handle(scene.put(event))
    assert scene.broker.records(TEXT) == ()
    assert [each.headers["dlq_reason"] for each in scene.broker.records(DEAD)] == ["result_refused"]


def test_a_text_whose_topic_may_not_be_written_is_stored_when_it_may(event):
    """The right to write is not the utterance's affair; its audio is not put aside."""
    scene = Scene()
    refusal = DeliveryError(stored="no", refused="topic", reason="TOPIC_AUTHORIZATION_FAILED")
    scene.errors = [refusal, refusal]
    scene.handle(scene.put(event))
    assert (len(scene.broker.records(TEXT)), scene.broker.records(DEAD)) == (1, ())


def test_a_text_that_cannot_be_stored_now_is_stored_later(event):
    """A broker that is away is no reason to bury an utterance."""
    scene = Scene()
    scene.errors = [DeliveryError(stored="unknown", reason="_MSG_TIMED_OUT")]
    scene.handle(scene.put(event))
    assert (len(scene.broker.records(TEXT)), scene.broker.records(DEAD)) == (1, ())


def test_a_machine_without_a_thread_to_spare_is_waited_for(event, monkeypatch):
    """It says nothing of the record, which is recognised as soon as there is one."""
    scene = Scene()
    record = scene.put(event)
    errors, real = [RuntimeError("can't start new thread")], threading.Thread.start

    def start(thread):
        if errors:
            raise errors.pop()
        real(thread)

    monkeypatch.setattr(threading.Thread, "start", start)
    lines = scene.handle(record)
    assert [line["event"] for line in lines] == ["thread_unavailable", "utterance"]
    assert (len(scene.broker.records(TEXT)), scene.broker.records(DEAD)) == (1, ())


def test_a_registry_that_is_away_is_waited_for(event):
    """A schema that was not seen before cannot be had now; the record is as good as before."""
    scene = Scene()
    record = scene.put(event)
    asked = itertools.count(1)

    def schema(number, ask=scene.registry.schema):
        scene.registry.available = next(asked) > 1
        return ask(number)

    scene.registry.schema = schema
    lines = scene.handle(record)
    assert [line["event"] for line in lines] == ["schema_unavailable", "utterance"]
    assert (len(scene.broker.records(TEXT)), scene.broker.records(DEAD)) == (1, ())


@pytest.mark.parametrize(("first", "told"), [(7, {}), (5, {"dlq_last_offset": "7"})])
def test_records_that_nobody_can_read_are_one_dead_letter_without_content(first, told):
    """It says from where to where; there is nothing of theirs to keep."""
    scene = Scene()
    scene.handle(ReceivedRecord.damaged(AUDIO, 0, first, 7))
    (letter,) = scene.broker.records(DEAD)
    assert (letter.key, letter.value, letter.headers) == (
        b"",
        b"",
        {
            "dlq_reason": "unreadable_batch",
            "dlq_partition": "0",
            "dlq_offset": str(first),
            "dlq_omitted": "unreadable",
            **told,
        },
    )
    assert scene.count("speech_asr_dead_letters_total", reason="unreadable_batch") == 1
