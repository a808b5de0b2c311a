"""`speech trace` on the command line: the newest utterances, what cannot be asked, wrong usage."""

import socket
import uuid
from collections.abc import Callable, Iterator

import pytest
from speech_lib.kafka import headers
from speech_lib.testing.pipeline import Pipeline
from speech_tools.topics import Topics
from speech_tools.trace.command import app
from support.invoke import Done, invoke
from support.trace_writer import PARTITIONS, Writer


@pytest.fixture(scope="module")
def topics(pipeline: Pipeline, make_topic: Callable[..., str]) -> Topics:
    """Return topics for all tests of this module; each has an id of its own."""
    names = (make_topic(name, partitions=PARTITIONS) for name in ("audio", "text", "dead"))
    return Topics(*names)


@pytest.fixture
def writer(pipeline: Pipeline, topics: Topics) -> Writer:
    """Return a writer of one utterance."""
    return Writer(pipeline, topics)


@pytest.fixture
def closed_port() -> Iterator[int]:
    """Return a port at which nobody answers as long as the test runs."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, not listening: connections are refused
        yield taken.getsockname()[1]


@pytest.mark.parametrize("text", ["", "x", "6ba7b810-9dad-41d1-80b4", "--", "ö" * 36])
def test_what_is_no_id_is_refused(text: str):
    """A bad id gets one line and exit code 2, before anyone is asked."""
    assert invoke(app, "--", text, env={}) == Done(
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
    writer.topics = Topics("none-such", writer.topics.text, writer.topics.dead_letter)
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


@pytest.fixture
def two(pipeline: Pipeline, make_topic: Callable[..., str]) -> tuple[Writer, str, str]:
    """Return topics with two utterances, and their ids; the later one has no text."""
    names = (make_topic(name, partitions=PARTITIONS) for name in ("audio", "text", "dead"))
    writer = Writer(pipeline, Topics(*names))
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
    writer.topics = Topics(*(make_topic() for _ in range(3)))
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
    assert invoke(app, *arguments, env={}) == Done(2, "", f"trace: {line}\n")
