"""`docs/asyncapi.yaml`: the contract for programs says what the code does, and nothing else."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from speech_gateway.errors import Ending, Failure, NoText
from speech_gateway.handshake import PATH, Refusal
from speech_gateway.messages import SUBPROTOCOL
from speech_lib.events import AudioInput, AudioInputEvent, TextRecognized, TextRecognizedEvent
from speech_lib.kafka import headers
from speech_lib.kafka.records import ReceivedRecord
from speech_lib.topics import TopicsEnvironment
from support.described import DOCUMENT, checks, complaint, document
from test_docs_protocol import MESSAGES

TOOLS = Path(__file__).parent / "asyncapi"
CHANNEL = document()["channels"]["speak"]
COMPONENTS = document()["components"]
ID = "7d5a1c3e-7a51-4f0a-9f0e-0c6f3d6f1b52"


def references(value: object) -> Iterator[str]:
    """Yield every `$ref` in the document."""
    if isinstance(value, dict):
        if "$ref" in value:
            yield value["$ref"]
        for each in value.values():
            yield from references(each)
    elif isinstance(value, list):
        for each in value:
            yield from references(each)


def resolved(reference: str) -> object:
    file, _, pointer = reference.partition("#")
    found: Any = json.loads((DOCUMENT.parent / file).read_text()) if file else document()
    for step in filter(None, pointer.split("/")):
        found = found[step]
    return found


def test_every_reference_leads_somewhere():
    """Also those into the files of the Avro schemas."""
    assert [each for each in references(document()) if not resolved(each)] == []


@pytest.mark.pipeline
@pytest.mark.timeout(300)
def test_the_official_parser_takes_it(tmp_path):
    """No error and no warning, with the Avro schemas and the bindings."""
    if shutil.which("npm") is None:
        pytest.skip("npm is not on the PATH: install Node 20 or newer")
    for name in ("package.json", "package-lock.json", "validate.mjs"):
        shutil.copy(TOOLS / name, tmp_path)
    subprocess.run(
        ["npm", "ci", "--ignore-scripts", "--no-fund", "--no-audit"],  # noqa: S607
        cwd=tmp_path,
        check=True,
        capture_output=True,
        timeout=240,
    )
    said = subprocess.run(  # noqa: S603
        ["node", "validate.mjs", str(DOCUMENT)],  # noqa: S607
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (said.returncode, said.stdout, said.stderr) == (0, "valid\n", "")


@pytest.mark.parametrize("name", checks())
def test_every_message_has_an_example_that_is_valid(name: str):
    """So that whoever generates a client has something to try it on."""
    examples = COMPONENTS["messages"][name]["examples"]
    assert [complaint(json.dumps(example["payload"])) for example in examples] == [None]


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: message.status)
def test_a_message_of_the_gateway_is_described(message):
    """The very messages of docs/protocol.md."""
    assert complaint(message.to_json()) is None


def test_what_is_not_described_is_noticed():
    """A field or a status too much, and one too few."""
    frame = json.loads(MESSAGES[1].to_json())
    assert complaint(json.dumps({**frame, "more": 1})) is not None
    assert complaint(json.dumps({**frame, "status": "partial"})) == "'partial' is not described"
    del frame["deadline_ms"]
    assert complaint(json.dumps(frame)) is not None


def test_the_channel_is_the_gateways():
    """Its path, its subprotocol, and who may send what."""
    assert (CHANNEL["address"], CHANNEL["x-subprotocol"]) == (PATH, SUBPROTOCOL)
    sent = {f"#/channels/speak/messages/{message.status}" for message in MESSAGES}
    operations = document()["operations"]
    assert {each["$ref"] for each in operations["answerClient"]["messages"]} == sent


def test_refusals_are_those_of_the_gateway_in_their_order():
    """Status and code, and whether to come back."""
    assert CHANNEL["x-refusals"] == [
        {
            "status": refusal.value.status,
            "code": refusal.value.code,
            "retryable": "Retry-After" in dict(refusal.value.headers),
        }
        for refusal in Refusal
    ]


def test_codes_and_closes_are_those_of_the_gateway():
    """Every ending, failure and missing text, with its close code, and no other."""

    def told(name: str) -> set[tuple[str, int]]:
        return {(each["code"], each["close"]) for each in CHANNEL[name]}

    assert told("x-endings") == {(each.value.code, each.value.close_code) for each in Ending}
    assert told("x-failures") == {(each.value.code, each.value.close_code) for each in Failure}
    assert told("x-without-text") == {(each.value.code, each.value.close_code) for each in NoText}


def test_what_becomes_of_the_audio_is_the_gateways_rule():
    """Stored, discarded, and whether a final message says so."""
    rules = {each.value.code: each.value for each in reversed(Ending)}  # the default, of two rows
    assert [
        row["code"]
        for row in CHANNEL["x-endings"]
        if (row["audio"] == "stored") != rules[row["code"]].keeps_audio
        or row.get("silent", False) != rules[row["code"]].closed_by_library
        or row.get("retryable", False) != rules[row["code"]].retryable
    ] == []


def test_an_error_has_the_codes_of_the_gateway_and_no_other():
    """Every code of the source that can be in an `error`; and `ended_by` likewise."""
    properties = {
        name: COMPONENTS["messages"][name]["payload"]["properties"]
        for name in ("accepted", "error")
    }
    silent = {each.value.code for each in Ending if each.value.closed_by_library}
    never = {"done", "disconnect"}
    codes = {each.value.code for each in (*Ending, *Failure, *NoText)} - silent - never
    assert set(properties["error"]["code"]["enum"]) == codes
    kept = {each.value.code for each in Ending if each.value.keeps_audio}
    assert set(properties["accepted"]["ended_by"]["enum"]) == kept


def test_topics_are_those_that_are_made():
    """Their names, and what they are made with."""
    specs = TopicsEnvironment.load({"KAFKA_BOOTSTRAP_SERVERS": "kafka:9092"}).specs()
    channels = {
        channel["address"]: channel["bindings"]["kafka"]["topicConfiguration"]
        for channel in document()["channels"].values()
        if "kafka" in channel["bindings"]
    }
    made = {spec.name: spec.config() for spec in specs}
    assert channels.keys() == made.keys()
    assert [
        (topic, name)
        for topic, config in channels.items()
        for name, value in config.items()
        if made[topic][name] != str(value)
    ] == []


def described_headers(message: str) -> set[str]:
    return set(COMPONENTS["messages"][message]["headers"]["properties"])


def test_headers_are_those_that_are_written():
    """Of an utterance, a text and a dead letter, every one and no other."""
    record = ReceivedRecord("t", 0, 7, b"k", b"v", {"client_ref": "a"}, -1)
    audio = AudioInputEvent.new(
        correlation_id=ID, source_service="gateway", payload=AudioInput(b"")
    )
    text = TextRecognizedEvent.new(
        correlation_id=ID, source_service="asr", payload=TextRecognized("", "en", 0.0)
    )
    ingress = headers.for_audio_ingress(
        audio,
        traceparent="",
        ended_by="done",
        handshake_ms=0,
        first_audio_ms=0,
        ended_ms=0,
        source="",
        client_ref="a",
    )
    recognised = headers.for_asr_text(
        text, traceparent="", input_event_id=ID, fetched_ms=0, recognised_ms=0, utterance=record
    )
    damaged = ReceivedRecord.damaged("t", 0, 7, 9)
    dead = headers.for_empty_dead_letter(damaged, reason="not_avro")
    assert described_headers("utterance") == ingress.keys()
    assert described_headers("text") == recognised.keys()
    assert described_headers("deadLetter") == dead.keys()
