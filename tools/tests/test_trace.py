"""`speech trace`: every hop of an utterance from its records, and the one that is missing."""

import json
import socket
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from speech_lib.events import TextRecognized, TextRecognizedEvent
from speech_lib.kafka import headers
from speech_lib.kafka.records import ReceivedRecord
from speech_lib.kafka.registry import EventSerializer, SchemaRegistry
from speech_lib.testing import foreign
from speech_lib.testing.foreign import ForeignRecord
from speech_lib.testing.pipeline import Pipeline
from speech_tools.trace import search, tracing
from speech_tools.trace.command import app
from typer.testing import CliRunner

PARTITIONS = 6
START_MS = 1_700_000_000_000
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
FLUSH_SECONDS = 20


@dataclass(frozen=True)
class Done:
    """How a run of the script ended."""

    returncode: int
    stdout: str
    stderr: str


class Writer:
    """Writes what the services would, at times of its own, on topics of its own."""

    def __init__(self, pipeline: Pipeline, topics: tracing.Topics) -> None:
        self.pipeline = pipeline
        self.topics = topics
        self.id = str(uuid.uuid4())
        self.input_id = str(uuid.uuid4())
        self.group_id = f"asr-{self.id}"
        self._producer = Producer(
            {"bootstrap.servers": pipeline.bootstrap_servers, "linger.ms": 0, "acks": "all"}
        )

    def audio(self, partition: int = -1, at_ms: int = 2_110, **changed: str) -> dict[str, object]:
        """Store an utterance whose value is no event: nobody looks into it."""
        told = {
            headers.CORRELATION_ID: self.id,
            headers.TRACEPARENT: TRACEPARENT,
            headers.EVENT_TYPE: "AudioInputEvent",
            headers.ENDED_BY: "done",
            headers.HANDSHAKE_MS: str(START_MS),
            headers.FIRST_AUDIO_MS: str(START_MS + 100),
            headers.ENDED_MS: str(START_MS + 2_100),
        }
        return self._store(self.topics.audio, b"audio", told | changed, at_ms, partition)

    def text(self, at_ms: int = 2_500, text: str = "go forward") -> dict[str, object]:
        """Store a recognised text."""
        event = TextRecognizedEvent.new(
            correlation_id=self.id, source_service="asr", payload=TextRecognized(text, "en-US", 0.5)
        )
        told = headers.for_asr_text(
            event,
            traceparent=TRACEPARENT,
            input_event_id=self.input_id,
            fetched_ms=START_MS + 2_150,
            recognised_ms=START_MS + 2_450,
        )
        with closing(SchemaRegistry(self.pipeline.registry_url)) as registry:
            serializer = EventSerializer(
                registry, self.topics.text, TextRecognizedEvent, auto_register=True
            )
            serializer.warm_up()
            return self._store(self.topics.text, serializer.encode(event), told, at_ms)

    def dead_letter(self, **changed: str) -> dict[str, object]:
        """Store a dead letter."""
        told = {
            headers.CORRELATION_ID: self.id,
            headers.DLQ_REASON: "not_wav",
            headers.DLQ_PARTITION: "0",
            headers.DLQ_OFFSET: "0",
        }
        return self._store(self.topics.dead_letter, b"audio", told | changed, 2_200)

    def empty_dead_letter(self, of: Mapping[str, object]) -> dict[str, object]:
        """Store what is kept of an utterance that fills the broker's limit."""
        told = {
            headers.DLQ_REASON: "not_wav",
            headers.DLQ_PARTITION: str(of["partition"]),
            headers.DLQ_OFFSET: str(of["offset"]),
            headers.DLQ_OMITTED: "too_large",
        }
        return self._store(self.topics.dead_letter, b"", told, 2_200, key=b"")

    def commit(self, partition: int, next_offset: int) -> None:
        """Commit as the recogniser does when it has done all before an offset."""
        group = {"bootstrap.servers": self.pipeline.bootstrap_servers, "group.id": self.group_id}
        with closing(Consumer(group)) as consumer:
            done = TopicPartition(self.topics.audio, partition, next_offset)
            consumer.commit(offsets=[done], asynchronous=False)

    def _store(
        self,
        topic: str,
        value: bytes,
        told: Mapping[str, str],
        at_ms: int,
        partition: int = -1,
        key: bytes | None = None,
    ) -> dict[str, object]:
        stored = []
        self._producer.produce(
            topic,
            key=self.id.encode() if key is None else key,
            value=value,
            headers=[(name, text.encode()) for name, text in told.items()],
            partition=partition,
            timestamp=START_MS + at_ms,
            on_delivery=lambda error, message: stored.append((error, message)),
        )
        assert self._producer.flush(FLUSH_SECONDS) == 0
        ((error, message),) = stored
        assert error is None
        return {"topic": topic, "partition": message.partition(), "offset": message.offset()}

    def trace(self, *arguments: str) -> Done:
        """Run the script on this utterance."""
        return self.run(self.id, *arguments)

    def run(self, *arguments: str) -> Done:
        """Run the script on these topics."""
        names = {
            "ASR_GROUP_ID": self.group_id,
            "TOPIC_AUDIO_INGRESS": self.topics.audio,
            "TOPIC_ASR_TEXT": self.topics.text,
            "TOPIC_DEAD_LETTER": self.topics.dead_letter,
            "KAFKA_BOOTSTRAP_SERVERS": self.pipeline.bootstrap_servers,
            "SCHEMA_REGISTRY_URL": self.pipeline.registry_url,
        }
        return run(*arguments, env=names)


def run(*arguments: str, env: Mapping[str, str]) -> Done:
    """Run the script to its end, in this process: most of its time would go into its imports."""
    result = CliRunner().invoke(app, list(arguments), env=dict(env))
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Done(result.exit_code, result.stdout, result.stderr)


@pytest.fixture(scope="module")
def topics(pipeline: Pipeline, make_topic: Callable[..., str]) -> tracing.Topics:
    """Return topics for all tests of this module; each has an id of its own."""
    names = (make_topic(name, partitions=PARTITIONS) for name in ("audio", "text", "dead"))
    return tracing.Topics(*names)


@pytest.fixture
def writer(pipeline: Pipeline, topics: tracing.Topics) -> Writer:
    """Return a writer of one utterance."""
    return Writer(pipeline, topics)


@pytest.fixture
def closed_port() -> Iterator[int]:
    """Return a port at which nobody answers as long as the test runs."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, not listening: connections are refused
        yield taken.getsockname()[1]


def hop(name: str, at_ms: int, wait_ms: int | None, place: object = None) -> dict[str, object]:
    """Return a hop as the script's JSON tells it."""
    return {"name": name, "at_ms": START_MS + at_ms, "place": place, "wait_ms": wait_ms}


def test_every_hop_of_a_recognised_utterance_is_told(writer: Writer):
    """Hops have their time, the wait before them and their record; the text is decoded."""
    stored, texted = writer.audio(), writer.text()
    done = writer.trace("--json")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout) == {
        "correlation_id": writer.id,
        "ended_by": "done",
        "hops": [
            hop("handshake", 0, None),
            hop("first audio", 100, 100),
            hop("end of audio", 2_100, 2_000),
            hop("stored", 2_110, 10, stored),
            hop("fetched", 2_150, 40),
            hop("recognised", 2_450, 300),
            hop("text stored", 2_500, 50, texted),
        ],
        "results": [{"text": "go forward", "language": "en-US", "confidence": 0.5, "repeats": 0}],
        "refusal": None,
        "missing": None,
    }


def test_people_get_a_table(writer: Writer):
    """Without --json there is a line for each hop, and the text."""
    stored = writer.audio()
    writer.text()
    done = writer.trace()
    lines = done.stdout.splitlines()
    assert (done.returncode, done.stderr, lines[0]) == (0, "", f"utterance {writer.id}")
    (row,) = [line.split() for line in lines if line.startswith("stored")]
    place = [str(stored["partition"]), str(stored["offset"])]
    assert row[:-1] == ["stored", "22:13:22.110", "0.010", "s", *place]
    assert "text: go forward" in lines


def test_without_a_text_the_missing_hop_is_named(writer: Writer):
    """An utterance that nobody has recognised yet ends 1, and says whom to look at."""
    stored = writer.audio()
    writer.commit(stored["partition"], stored["offset"])
    done = writer.trace()
    assert (done.returncode, done.stderr) == (
        1,
        "trace: stored but not fetched: no utterance is before it on its partition; "
        "is the ASR service running?\n"
        if writer.pipeline.embedded
        else "trace: stored but not fetched: no ASR service is running in group "
        f"{writer.group_id}; no utterance is before it on its partition\n",
    )
    assert "stored" in done.stdout


def test_an_unknown_id_was_not_stored(writer: Writer):
    """An id that no record has ends 1 and names the first topic."""
    done = writer.trace()
    assert done.returncode == 1
    assert done.stderr.startswith(f"trace: not stored: nothing on {writer.topics.audio} has this")


def test_a_dead_letter_is_shown_with_its_reason(writer: Writer):
    """What could not be processed ends 1 with the reason and the dead letter's place."""
    writer.audio()
    place = writer.dead_letter()
    done = writer.trace("--json")
    told = json.loads(done.stdout)
    assert (done.returncode, done.stderr) == (
        1,
        "trace: not recognised: it is a dead letter (not_wav)\n",
    )
    assert told["refusal"] == {"reason": "not_wav", "place": place}
    assert told["hops"][-1] == hop("dead letter", 2_200, 90, place)


def test_a_dead_letter_that_tells_a_wrong_place_hides_nothing(writer: Writer):
    """The utterance is found by its time, where it does not lie where its dead letter says."""
    partition = search.likely_partition(writer.id, PARTITIONS)
    wrong = Writer(writer.pipeline, writer.topics).audio(partition=partition)
    writer.audio(partition=partition)
    told = {headers.DLQ_PARTITION: str(partition), headers.DLQ_OFFSET: str(wrong["offset"])}
    place = writer.dead_letter(**told)
    hops = json.loads(writer.trace("--json").stdout)["hops"]
    assert hops[-1] == hop("dead letter", 2_200, 90, place)


def test_records_whose_headers_cannot_be_read_are_passed_over(writer: Writer):
    """Who may write to a topic keeps nobody from finding an utterance beside what he wrote."""
    while search.likely_partition(writer.id, PARTITIONS) != 0:  # where foreign records are stored
        writer.id = str(uuid.uuid4())
    strange = ForeignRecord(b"audio", writer.id.encode(), [(b"\xff", b"x")])
    stored = writer.audio()
    for _ in range(12):  # the client library's fault shows itself after some eight
        foreign.store(writer.pipeline.bootstrap_servers, writer.topics.audio, strange)
    hops = json.loads(writer.trace("--json").stdout)["hops"]
    assert [each["place"] for each in hops if each["place"]] == [stored]


def test_a_repeated_result_is_shown_once(writer: Writer):
    """The recogniser stores a result at least once; the first one counts, the others are told."""
    writer.audio()
    first = writer.text()
    writer.text(at_ms=9_000)
    writer.text(at_ms=9_500)
    told = json.loads(writer.trace("--json").stdout)
    assert told["hops"][-1] == hop("text stored", 2_500, 50, first)
    assert [result["repeats"] for result in told["results"]] == [2]
    assert "the same result was stored again: 2 times" in writer.trace().stdout


def test_silence_is_a_text_too(writer: Writer):
    """An utterance without speech is complete."""
    writer.audio()
    writer.text(text="")
    done = writer.trace()
    assert done.returncode == 0
    assert "text: (no speech)" in done.stdout


def test_an_utterance_on_another_partition_is_found(writer: Writer):
    """A producer with another partitioner costs time, no more."""
    other = (search.likely_partition(writer.id, PARTITIONS) + 1) % PARTITIONS
    stored = writer.audio(partition=other)
    assert stored["partition"] == other
    told = json.loads(writer.trace("--json").stdout)
    assert told["hops"][3] == hop("stored", 2_110, 10, stored)


def test_the_likely_partition_is_where_records_go(writer: Writer):
    """The search knows where librdkafka's default partitioner puts a key."""
    placed = []
    for _ in range(50):
        writer.id = str(uuid.uuid4())
        placed.append((search.likely_partition(writer.id, PARTITIONS), writer.audio()["partition"]))
    assert [likely for likely, _ in placed] == [actual for _, actual in placed]
    assert len(set(placed)) == PARTITIONS


def test_what_a_record_does_not_tell_is_not_known(writer: Writer):
    """A header that is no time leaves the hop without one; the next waits for the one before."""
    writer.audio(**{headers.FIRST_AUDIO_MS: "soon"})
    told = json.loads(writer.trace("--json").stdout)
    assert told["hops"][1:3] == [
        {"name": "first audio", "at_ms": None, "place": None, "wait_ms": None},
        hop("end of audio", 2_100, 2_100),
    ]


def test_nothing_in_a_record_speaks_to_the_terminal(writer: Writer):
    """Control characters, which anyone may have written, are not printed."""
    writer.audio(**{headers.ENDED_BY: "done\x1b[2J"})
    writer.text(text="go \x1b]0;title\x07[red]forward")
    done = writer.trace()
    assert "\x1b" not in done.stdout
    assert "text: go \ufffd]0;title\ufffd[red]forward" in done.stdout.splitlines()


def test_the_text_alone_is_enough():
    """Where the audio's record is gone by retention, the text is still a result."""
    topics = tracing.Topics("audio", "text", "dead")
    event = TextRecognizedEvent.new(
        correlation_id=str(uuid.uuid4()),
        source_service="asr",
        payload=TextRecognized("hello", "en-US", 0.5),
    )
    record = ReceivedRecord("text", 0, 7, b"", b"value", {headers.FETCHED_MS: "5"}, 9)
    found = tracing.trace(event.correlation_id, [record], topics, lambda _: event)
    assert found.missing is None
    assert [(each.name, each.at_ms, each.wait_ms) for each in found.hops] == [
        ("handshake", None, None),
        ("first audio", None, None),
        ("end of audio", None, None),
        ("stored", None, None),
        ("fetched", 5, None),
        ("recognised", None, None),
        ("text stored", 9, 4),
    ]


@pytest.mark.parametrize("text", ["", "x", "6ba7b810-9dad-41d1-80b4", "--", "ö" * 36])
def test_what_is_no_id_is_refused(text: str):
    """A bad id gets one line and exit code 2, before anyone is asked."""
    assert run("--", text, env={}) == Done(
        2, "", "trace: expected a correlation id, as speech stream prints it\n"
    )


def test_a_broker_that_does_not_answer_is_told(writer: Writer, closed_port: int):
    """An unreachable broker gets one line and exit code 2."""
    done = writer.trace("--bootstrap-servers", f"127.0.0.1:{closed_port}")
    assert done == Done(2, "", "trace: the broker is not available: _TRANSPORT\n")


def test_a_registry_that_does_not_answer_is_told(writer: Writer, closed_port: int):
    """An unreachable registry gets one line and exit code 2, where there is a text to decode."""
    writer.audio()
    writer.text()
    done = writer.trace("--registry", f"http://127.0.0.1:{closed_port}")
    assert done == Done(
        2,
        "",
        "trace: the text cannot be decoded: the registry cannot be reached: ConnectError\n",
    )


def test_a_topic_that_does_not_exist_is_told(writer: Writer):
    """The broker of another system gets one line and exit code 2."""
    writer.topics = tracing.Topics("none-such", writer.topics.text, writer.topics.dead_letter)
    assert writer.trace() == Done(
        2, "", "trace: topic none-such cannot be used: UNKNOWN_TOPIC_OR_PART\n"
    )


def test_a_wrong_address_is_told(writer: Writer):
    """A broker that is not host:port gets one line and exit code 2."""
    assert writer.trace("--bootstrap-servers", "nowhere") == Done(
        2,
        "",
        "trace: KAFKA_BOOTSTRAP_SERVERS: expected host:port, or several separated by commas\n",
    )


def test_a_value_that_is_no_event_is_told(writer: Writer):
    """A text that cannot be read is a missing hop, not a traceback."""
    writer.audio()
    told = {headers.CORRELATION_ID: writer.id}
    writer._store(writer.topics.text, b"\x01not avro", told, 2_500)
    done = writer.trace()
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("trace: the record of the text cannot be read: ")


def test_what_waits_before_an_utterance_is_counted(writer: Writer):
    """By what the recognisers have committed: two others of its partition are not done yet."""
    first = writer.audio()
    writer.audio()
    mine = str(uuid.uuid4())
    while search.likely_partition(mine, PARTITIONS) != first["partition"]:
        mine = str(uuid.uuid4())
    writer.id = mine
    last = writer.audio()
    writer.commit(first["partition"], last["offset"] - 2)
    missing = json.loads(writer.trace("--json").stdout)["missing"]
    members = None if writer.pipeline.embedded else 0
    assert (missing["hop"], missing["before"], missing["members"]) == ("fetched", 2, members)
    assert "2 utterances are before it on its partition" in missing["line"]


def test_an_utterance_that_was_passed_over_is_told(writer: Writer):
    """Committed, yet without text or dead letter: that is no matter of waiting."""
    stored = writer.audio()
    writer.commit(stored["partition"], stored["offset"] + 1)
    missing = json.loads(writer.trace("--json").stdout)["missing"]
    assert (missing["hop"], missing["before"]) == ("text stored", None)
    assert missing["line"].startswith(f"no text: group {writer.group_id} is past it")


def test_a_dead_letter_of_which_nothing_is_kept_is_found_by_its_place(writer: Writer):
    """It has no correlation id any more, but says where the utterance lay."""
    stored = writer.audio()
    place = writer.empty_dead_letter(stored)
    writer.commit(stored["partition"], stored["offset"] + 1)
    told = json.loads(writer.trace("--json").stdout)
    assert told["refusal"] == {"reason": "not_wav", "place": place}


def test_asking_leaves_the_group_as_it_was(writer: Writer):
    """The recognisers' commits are read without becoming a member, and none is changed."""
    stored = writer.audio()
    writer.commit(stored["partition"], stored["offset"])
    before = [writer.trace("--json").stdout for _ in range(2)]
    assert before[0] == before[1]
    assert json.loads(before[0])["missing"]["before"] == 0


@pytest.fixture
def two(pipeline: Pipeline, make_topic: Callable[..., str]) -> tuple[Writer, str, str]:
    """Return topics with two utterances, and their ids; the later one has no text."""
    names = (make_topic(name, partitions=PARTITIONS) for name in ("audio", "text", "dead"))
    writer = Writer(pipeline, tracing.Topics(*names))
    writer.audio()
    writer.text()
    earlier, writer.id = writer.id, str(uuid.uuid4())
    writer.audio(at_ms=60_000)
    return writer, earlier, writer.id


def test_the_newest_are_shown_a_line_each(two: tuple[Writer, str, str]):
    """The newest comes last; that one has no text ends 1 and names the hop."""
    writer, *ids = two
    done = writer.run("--last", "5")
    rows = [line.split() for line in done.stdout.splitlines()[2:]]
    assert [row[1] for row in rows] == ids
    assert rows[0][-2:] == ["go", "forward"]
    assert "waits" in rows[1] or "waits," in rows[1]
    assert (done.returncode, done.stderr) == (1, "trace: 1 of 2 have no text; missing: fetched\n")


def test_the_newest_as_json_are_what_each_alone_is(two: tuple[Writer, str, str]):
    """One object a line, the same as by the id."""
    writer, *ids = two
    lines = writer.run("--last", "2", "--json").stdout.splitlines()
    assert lines == [writer.run(each, "--json").stdout.strip() for each in ids]


def test_the_newest_one_is_shown_whole(two: tuple[Writer, str, str]):
    """`--last 1` is for those who have just spoken."""
    writer, *_ = two
    assert writer.run("--last", "1") == writer.trace()


def test_without_any_utterance_there_is_no_newest(writer: Writer, make_topic):
    """Empty topics end 1 with one line."""
    writer.topics = tracing.Topics(*(make_topic() for _ in range(3)))
    assert writer.run("--last", "3") == Done(1, "", "trace: nothing is stored yet\n")


ID = "0af76519-16cd-43dd-8448-eb211c80319c"


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ([], "expected one of CORRELATION_ID, --last and --follow"),
        ([ID, "--follow"], "expected one of CORRELATION_ID, --last and --follow"),
        (["--last", "2", "--follow"], "expected one of CORRELATION_ID, --last and --follow"),
        (["--last", "2", "--since", "1h"], "--since: expected with a CORRELATION_ID only"),
        ([ID, "--since", "soon"], "--since: expected how long ago, as in 30s, 10m, 2h or 1d"),
    ],
)
def test_wrong_usage_is_told(arguments: list[str], line: str):
    """What does not go together gets one line and exit code 2."""
    assert run(*arguments, env={}) == Done(2, "", f"trace: {line}\n")
