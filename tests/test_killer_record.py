"""A record that kills its reader kills it once: the next one lets another process read it first."""

import resource
import signal
import sys
import time
import uuid
from pathlib import Path

import pytest
from speech_gateway.wav import wrap
from speech_lib.events import AudioInput, AudioInputEvent
from speech_lib.events.codec import encode
from speech_lib.events.schemas import schema_text
from speech_lib.kafka.consumer import RecordConsumer
from speech_lib.kafka.records import ReceivedRecord
from speech_lib.kafka.registry import subject_of
from speech_lib.testing import foreign
from speech_lib.testing.foreign import ForeignRecord
from speech_tools import stack

pytestmark = [pytest.mark.pipeline, pytest.mark.timeout(180)]

POLLS = 60
TEXT_SECONDS = 10.0
"""From the moment at which the record is stored until the next utterance has its text."""
SESSION_SECONDS = 10.0
"""What is added where a member was killed: the group waits so long for it (`consumer_config`)."""
START_SECONDS = 10.0
"""And until its successor has loaded its engine, beside whatever else the machine does."""
MIB = 1024 * 1024
UNPACKED = 300 * MIB
GRANTED = 200 * MIB
"""What the recogniser may take on top, as if its container had no more."""


def utterance(topics) -> tuple[str, ForeignRecord]:
    """Return the correlation id of an utterance of silence, and its record."""
    topic = topics.names["TOPIC_AUDIO_INGRESS"]
    schema_id = topics.registry.register(subject_of(topic), schema_text("AudioInputEvent"))
    event = AudioInputEvent.new(
        correlation_id=str(uuid.uuid4()),
        source_service="gateway",
        payload=AudioInput(wrap(bytes(3_200))),
    )
    return event.correlation_id, ForeignRecord(encode(event, schema_id))


def limit_memory(pid: int) -> None:
    """Let a running process have a little more memory than it has, and no more."""
    status = Path(f"/proc/{pid}/status").read_text()
    data = int(status.partition("VmData:")[2].split()[0]) * 1024
    resource.prlimit(pid, resource.RLIMIT_DATA, (data + GRANTED, data + GRANTED))


def read_all(consumer: RecordConsumer) -> list[ReceivedRecord]:
    """Return what is there, once there is something."""
    for _ in range(POLLS):
        if found := consumer.poll(0.5):
            return found + consumer.poll(1.0)
    raise AssertionError("there is no dead letter")


@pytest.mark.skipif(sys.platform != "linux", reason="limits the memory of another process")
def test_a_record_that_kills_the_recogniser_kills_it_once(pipeline, topics, tmp_path):
    """It is a dead letter without content; the utterance behind it has its text."""
    audio_topic = topics.names["TOPIC_AUDIO_INGRESS"]
    with stack.recogniser(pipeline, tmp_path, topics.names) as first:
        limit_memory(first._process.pid)
        bomb = ForeignRecord(bytes(UNPACKED), compression="lz4")
        offset = foreign.store(pipeline.bootstrap_servers, audio_topic, bomb)
        stored_at = time.time()
        correlation_id, behind = utterance(topics)
        foreign.store(pipeline.bootstrap_servers, audio_topic, behind)
        assert first.wait(60) == -signal.SIGABRT
    with stack.recogniser(pipeline, tmp_path, topics.names) as second:
        text = topics.text(correlation_id)
        assert second.stop() == 0
    assert text.payload.text == ""
    took = topics.find("TOPIC_ASR_TEXT", correlation_id).timestamp_ms / 1000 - stored_at
    print(f"{took:.1f} s")  # noqa: T201 - for the document
    assert took < TEXT_SECONDS + SESSION_SECONDS + START_SECONDS
    with topics.reader("TOPIC_DEAD_LETTER") as consumer:
        letters = read_all(consumer)
    assert [(each.value, each.headers) for each in letters] == [
        (
            b"",
            {
                "dlq_reason": "unreadable_batch",
                "dlq_partition": "0",
                "dlq_offset": str(offset),
                "dlq_omitted": "unreadable",
            },
        )
    ]
