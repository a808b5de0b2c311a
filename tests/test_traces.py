"""One trace from the handshake to the text, as a collector of OpenTelemetry sees it."""

import asyncio
import inspect
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from opentelemetry.semconv._incubating.attributes import messaging_attributes
from opentelemetry.semconv.attributes import (
    error_attributes,
    http_attributes,
    network_attributes,
    server_attributes,
    url_attributes,
)
from speech_asr import __version__ as asr_version
from speech_gateway import __version__ as gateway_version
from speech_gateway import session_report
from speech_lib.kafka.producer import RecordProducer
from speech_lib.kafka.records import Record, Stored
from speech_lib.kafka.settings import KafkaSettings
from speech_lib.telemetry import spans as described
from speech_tools import stack
from speech_tools.protocol import audio
from speech_tools.stack import Process
from support.otlp_receiver import Collector, ReceivedSpan, collector
from websockets.asyncio.client import connect

GO_FORWARD = Path(__file__).parent.parent / "samples" / "go-forward-ten-meters.raw"
DESCRIBED_IN = (Path(described.__file__), Path(session_report.__file__))
ATTRIBUTE = re.compile(r'"((?:messaging|http|url|network|server|error)\.[a-z_.]+)"')
CLIENTS_TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
CLIENTS_SPAN = "00f067aa0ba902b7"
HANDSHAKE, RECOGNISE = "GET /ws/audio", "recognise"
KEY = "s3cret-key"

pytestmark = [pytest.mark.pipeline, pytest.mark.timeout(180)]


@dataclass(frozen=True)
class Running:
    """Both services, and what they tell."""

    url: str
    collector: Collector
    names: dict[str, str]
    gateway: Process
    recogniser: Process

    @property
    def send_audio(self) -> str:
        return f"send {self.names['TOPIC_AUDIO_INGRESS']}"

    @property
    def process_audio(self) -> str:
        return f"process {self.names['TOPIC_AUDIO_INGRESS']}"

    @property
    def send_text(self) -> str:
        return f"send {self.names['TOPIC_ASR_TEXT']}"

    @property
    def bury(self) -> str:
        return f"send {self.names['TOPIC_DEAD_LETTER']}"

    def whole_trace(self, trace_id: str) -> dict[str, ReceivedSpan]:
        """Wait for all spans of an utterance and return them by their names."""
        wanted = (HANDSHAKE, self.send_audio, self.process_audio, RECOGNISE, self.send_text)
        spans = self.collector.wait_for(*wanted, trace_id=trace_id)
        assert sorted(each.name for each in spans) == sorted(wanted)
        return {each.name: each for each in spans}


@pytest.fixture(scope="module")
def running(pipeline, topics, logs) -> Iterator[Running]:
    with collector() as taking:
        settings = {
            **topics.names,
            "OTEL_EXPORTER_OTLP_ENDPOINT": taking.endpoint,
            "OTEL_EXPORTER_OTLP_HEADERS": f"api-key={KEY}",
            "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment.name=test",
        }
        with (
            stack.gateway(pipeline, logs, settings) as gateway,
            stack.recogniser(pipeline, logs, settings) as recogniser,
        ):
            yield Running(gateway.url, taking, dict(topics.names), gateway.process, recogniser)


def speak(url: str, pcm: bytes, **headers: str) -> dict[str, object]:
    """Speak one utterance and return the receipt."""

    async def scenario() -> dict[str, object]:
        async with connect(url, additional_headers=headers) as client:
            await client.recv()
            await client.send(pcm)
            await client.send('{"event":"done"}')
            return json.loads(await client.recv())

    return asyncio.run(scenario())


@pytest.fixture(scope="module")
def utterance(running, topics):
    """Speak with a trace of the client's own; return the receipt, the spans, and the records."""
    pcm = audio.load(GO_FORWARD).pcm[:64_000]
    receipt = speak(running.url, pcm, traceparent=f"00-{CLIENTS_TRACE}-{CLIENTS_SPAN}-01")
    spans = running.whole_trace(CLIENTS_TRACE)
    heard = topics.find("TOPIC_AUDIO_INGRESS", receipt["correlation_id"])
    said = topics.find("TOPIC_ASR_TEXT", receipt["correlation_id"])
    return receipt, spans, heard, said


def test_the_spans_of_an_utterance_are_one_tree(running, utterance):
    """The client's span is above the handshake's, and each part is below what it was done for."""
    _, spans, _, _ = utterance
    ids = {name: span.span_id for name, span in spans.items()}
    assert {name: (span.kind, span.parent_id, span.links) for name, span in spans.items()} == {
        HANDSHAKE: ("SERVER", CLIENTS_SPAN, ()),
        running.send_audio: ("PRODUCER", ids[HANDSHAKE], ()),
        running.process_audio: ("CONSUMER", ids[running.send_audio], (ids[running.send_audio],)),
        RECOGNISE: ("INTERNAL", ids[running.process_audio], ()),
        running.send_text: ("PRODUCER", ids[running.process_audio], ()),
    }
    assert {span.status for span in spans.values()} == {"UNSET"}


def test_the_records_carry_the_spans_that_made_them(running, utterance):
    """So whoever reads the text goes on with the trace."""
    _, spans, heard, said = utterance
    assert [record.headers["traceparent"] for record in (heard, said)] == [
        f"00-{CLIENTS_TRACE}-{spans[name].span_id}-01"
        for name in (running.send_audio, running.send_text)
    ]


def test_the_attributes_say_what_was_done(running, utterance):
    """By OpenTelemetry's conventions, and by our own where there are none."""
    receipt, spans, heard, said = utterance
    cid = receipt["correlation_id"]

    def message(record, operation: str, client: str) -> dict[str, object]:
        return {
            "messaging.system": "kafka",
            "messaging.operation.name": operation,
            "messaging.operation.type": operation,
            "messaging.client.id": client,
            "messaging.destination.name": record.topic,
            "messaging.destination.partition.id": str(record.partition),
            "messaging.kafka.offset": record.offset,
            "messaging.kafka.message.key": cid,
            "messaging.message.conversation_id": cid,
            "messaging.message.body.size": len(record.value),
        }

    told = {name: dict(span.attributes) for name, span in spans.items()}
    assert told[RECOGNISE].pop("speech.engine.seconds") > 0
    assert told == {
        RECOGNISE: {"speech.audio.seconds": receipt["audio_bytes"] / 32_000},
        HANDSHAKE: {
            "http.request.method": "GET",
            "http.response.status_code": 101,
            "http.route": "/ws/audio",
            "network.protocol.name": "websocket",
            "server.port": int(running.url.rpartition(":")[2].partition("/")[0]),
            "url.path": "/ws/audio",
            "url.scheme": "http",
            "speech.correlation_id": cid,
            "speech.ended_by": "done",
            "speech.outcome": "accepted",
            "speech.audio.bytes": receipt["audio_bytes"],
            "speech.audio.messages": 1,
        },
        running.send_audio: message(heard, "send", "speech-gateway"),
        running.process_audio: {
            **message(heard, "process", "speech-asr"),
            "messaging.consumer.group.name": running.names["ASR_GROUP_ID"],
        },
        running.send_text: message(said, "send", "speech-asr"),
    }


def test_no_attribute_is_of_our_own_invention():
    """Each is in the conventions that the official package knows, or begins with `speech.`."""
    modules = (
        *(messaging_attributes, http_attributes, url_attributes),
        *(network_attributes, server_attributes, error_attributes),
    )
    known = {
        value
        for module in modules
        for name, value in inspect.getmembers(module)
        if name.isupper() and isinstance(value, str)
    }
    source = "".join(path.read_text() for path in DESCRIBED_IN)
    used = set(ATTRIBUTE.findall(source))
    assert len(used) > 15
    assert used - known == set()


def test_each_span_says_which_service_it_is_of(utterance):
    """Name, version, and what the operator adds; and which conventions it follows."""
    _, spans, _, _ = utterance
    versions = {"speech-gateway": gateway_version, "speech-asr": asr_version}
    for span in spans.values():
        assert span.resource == {
            "service.name": span.service,
            "service.version": versions[span.service],
            "deployment.environment.name": "test",
        }
        assert span.schema_url == "https://opentelemetry.io/schemas/1.44.0"


def test_the_times_are_those_of_the_work(utterance, running):
    """A part lies within the whole, and the hops follow each other."""
    _, spans, _, _ = utterance
    whole, part = spans[running.process_audio], spans[RECOGNISE]
    assert whole.start_ns <= part.start_ns < part.end_ns <= whole.end_ns
    handshake, stored = spans[HANDSHAKE], spans[running.send_audio]
    assert handshake.start_ns < stored.start_ns < stored.end_ns <= handshake.end_ns
    assert stored.end_ns < spans[running.send_text].end_ns


def test_the_collector_gets_the_headers_that_were_set(running, utterance):
    """A key for the collector is sent to it, and told nowhere else."""
    assert running.collector.headers["api-key"] == KEY


def test_a_trace_begins_where_the_client_has_none(running):
    """The first span has no parent, and all the others the same trace."""
    before = {span.trace_id for span in running.collector.spans}
    receipt = speak(running.url, bytes(32_000))
    running.collector.wait_for(HANDSHAKE)
    line = running.gateway.wait_for(event="session", correlation_id=receipt["correlation_id"])
    spans = running.whole_trace(line["trace_id"])
    assert line["trace_id"] not in before
    assert spans[HANDSHAKE].parent_id == ""


def test_a_trace_that_the_client_does_not_sample_is_not_exported(running):
    """Its ids travel on all the same."""
    trace_id = "5bf92f3577b34da6a3ce929d0e0e4736"
    speak(running.url, bytes(32_000), traceparent=f"00-{trace_id}-{CLIENTS_SPAN}-00")
    later = speak(running.url, bytes(32_000))
    line = running.gateway.wait_for(event="session", correlation_id=later["correlation_id"])
    running.whole_trace(line["trace_id"])
    assert [span for span in running.collector.spans if span.trace_id == trace_id] == []


def put(servers: str, record: Record) -> Stored:
    """Store a record that no gateway has made."""

    async def scenario() -> Stored:
        kafka = KafkaSettings(bootstrap_servers=servers)
        producer = RecordProducer(kafka, client_id="test", delivery_timeout=20)
        try:
            return await producer.send(record)
        finally:
            await producer.close(0)

    return asyncio.run(scenario())


def test_a_record_that_cannot_be_processed_is_an_error_in_its_trace(running, pipeline):
    """The reason is told, the dead letter is linked to who made the record."""
    parent = "1112f067aa0ba902"
    trace_id = "6bf92f3577b34da6a3ce929d0e0e4736"
    headers = {"correlation_id": "c", "traceparent": f"00-{trace_id}-{parent}-01"}
    record = Record(running.names["TOPIC_AUDIO_INGRESS"], b"\xff", b"none", headers)
    put(pipeline.bootstrap_servers, record)
    found = running.collector.wait_for(running.process_audio, running.bury, trace_id=trace_id)
    spans = {span.name: span for span in found}
    processed, buried = spans[running.process_audio], spans[running.bury]
    assert (processed.status, processed.attributes["error.type"]) == ("ERROR", "not_avro")
    assert (processed.parent_id, processed.links) == (parent, (parent,))
    assert (buried.kind, buried.parent_id) == ("PRODUCER", processed.span_id)
    assert (buried.status, buried.links) == ("UNSET", (parent,))
    assert "messaging.kafka.message.key" not in processed.attributes  # it is no text


@pytest.mark.parametrize("service", ["speech-gateway", "speech-asr"])
def test_without_the_extra_an_endpoint_is_a_wrong_setting(service):
    """One line on stderr names the variable and what to install; exit code 2, nothing else."""
    run = "import runpy, sys; sys.modules['opentelemetry'] = None"
    module = service.replace("-", "_")
    done = subprocess.run(  # noqa: S603 - our own module
        [sys.executable, "-c", f"{run}; runpy.run_module('{module}', run_name='__main__')"],
        env={
            "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1",
            "SCHEMA_REGISTRY_URL": "http://127.0.0.1:1",
            "OPS_PORT": "0",
            "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318",
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    name = service.removeprefix("speech-")
    expected = f"needs the extra otlp, expected {service}[otlp] to be installed"
    line = f"{name}: OTEL_EXPORTER_OTLP_ENDPOINT: {expected}\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", line)
