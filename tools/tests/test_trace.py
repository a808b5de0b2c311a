"""`speech trace`: every hop of an utterance from its records, and the one that is missing."""

import json
import uuid
from collections.abc import Callable

import pytest
from speech_lib.kafka import headers
from speech_lib.testing import foreign
from speech_lib.testing.foreign import ForeignRecord
from speech_lib.testing.pipeline import Pipeline
from speech_tools.topics import Topics
from speech_tools.trace import search
from support.trace_writer import PARTITIONS, START_MS, Writer


@pytest.fixture(scope="module")
def topics(pipeline: Pipeline, make_topic: Callable[..., str]) -> Topics:
    """Return topics for all tests of this module; each has an id of its own."""
    names = (make_topic(name, partitions=PARTITIONS) for name in ("audio", "text", "dead"))
    return Topics(*names)


@pytest.fixture
def writer(pipeline: Pipeline, topics: Topics) -> Writer:
    """Return a writer of one utterance."""
    return Writer(pipeline, topics)


def hop(name: str, at_ms: int, wait_ms: int | None, place: object = None) -> dict[str, object]:
    """Return a hop as the JSON of the command tells it."""
    return {"name": name, "at_ms": START_MS + at_ms, "place": place, "wait_ms": wait_ms}


def test_every_hop_of_a_recognised_utterance_is_told(writer: Writer):
    """Hops have their time, the wait before them and their record; the text is decoded."""
    stored, texted = writer.audio(), writer.text()
    done = writer.trace("--json")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout) == {
        "correlation_id": writer.id,
        "ended_by": "done",
        "client_ref": None,
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


def test_the_name_that_its_client_gave_it_is_told(writer: Writer):
    """So the attempts to say one thing are known by it; a name that no client may have is not."""
    writer.audio(client_ref="note-17")
    done = writer.trace("--json")
    assert json.loads(done.stdout)["client_ref"] == "note-17"
    assert writer.trace().stdout.splitlines()[1] == "2023-11-14, ended by done, client_ref note-17"


def test_a_name_that_no_client_may_have_is_not_told(writer: Writer):
    """Whoever writes to the topic may put in anything."""
    writer.audio(client_ref="\x1b[2J")
    assert json.loads(writer.trace("--json").stdout)["client_ref"] is None


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
