"""What `speech capacity` computes, and where its constants and its document come from."""

import json
import re
from datetime import date
from pathlib import Path

import pytest
from speech_gateway import room
from speech_lib.topics import TopicsEnvironment
from speech_tools.capacity import model
from speech_tools.capacity.command import app, markdown
from speech_tools.capacity.model import CONSTANTS, ENGINES, Demand, constant, needs, powers_of_ten
from support.invoke import invoke

DOCS = Path(__file__).parents[2] / "docs"
LARGEST_WAV = 1_572_864


def cells(document: str, first: str) -> list[list[str]]:
    """Return the rows of a document whose first cell is this one."""
    text = (DOCS / document).read_text(encoding="utf-8")
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    return [row for row in rows if row[0] == first]


def test_each_constant_says_what_it_is_and_where_it_comes_from():
    """With its date."""
    for name, each in CONSTANTS.items():
        if name != "engines":
            assert each["unit"]
            assert each["source"]
            assert date.fromisoformat(each["date"])


@pytest.mark.parametrize("engine", ENGINES)
def test_the_engines_are_those_of_the_document(engine):
    """Processor time and memory are the figures of docs/models.md."""
    name = "PocketSphinx" if engine == "pocketsphinx" else f"`{engine}`"
    (measured,) = [row for row in cells("models.md", f"`{engine}`") if len(row) == 10]
    (memory,) = [row for row in cells("models.md", name) if len(row) == 3]
    assert ENGINES[engine]["cpu"] == float(measured[8])
    assert ENGINES[engine]["memory"] == float(memory[1].removesuffix(" MB"))


def test_the_gateways_processor_is_that_of_the_bench():
    """The most live streams that docs/performance.md has, in messages of 100 ms."""
    text = (DOCS / "performance.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([\d,]+) x 3,200 B \| gateway \| ([\d.]+) ", text, re.MULTILINE)
    _, figure = max((int(streams.replace(",", "")), float(figure)) for streams, figure in rows)
    assert constant("gateway_cpu") == figure


def test_the_gateways_memory_is_what_it_warns_of():
    """As it computes the worst case itself."""
    empty, one = (room.worst_case_bytes(count, LARGEST_WAV) / room.MIB for count in (0, 1))
    assert constant("gateway_idle") == empty
    assert constant("gateway_client") == round(one - empty, 2)


def test_the_rest_is_what_the_services_have():
    """Its defaults."""
    settings = TopicsEnvironment(KAFKA_BOOTSTRAP_SERVERS="kafka:9092")
    assert constant("default_partitions") == settings.topic_partitions


def test_more_speakers_never_need_less():
    """Of anything."""
    every = [needs(each) for each in powers_of_ten(Demand(10))]
    for name in needs(Demand(10)).__slots__:
        values = [getattr(each, name) for each in every]
        assert values == sorted(values)


@pytest.mark.parametrize(
    ("more", "name"),
    [
        ({"retention_hours": 48.0}, "disk_gb"),
        ({"replication": 6}, "disk_gb"),
        ({"utterance_seconds": 2.5}, "connections_per_second"),
    ],
)
def test_twice_of_one_thing_is_twice_of_another(more, name):
    """Disk is of retention and copies, connections are of utterances."""
    usual, other = needs(Demand(1_000)), needs(Demand(1_000, **more))
    assert getattr(other, name) == pytest.approx(2 * getattr(usual, name))


def test_what_gives_way_is_told_once_on_the_way():
    """Each limit between two powers of ten is passed on one of the ways."""
    told = [limit.what for each in powers_of_ten(Demand(10)) for limit in model.passed(each)]
    every = [each.what for each in model.limits(Demand(10)) if 1 < each.speakers < 1_000_000]
    assert sorted(told) == sorted(every)


def test_the_document_has_the_table_of_the_command():
    """`uv run speech capacity --markdown` writes it."""
    text = (DOCS / "scaling.md").read_text(encoding="utf-8")
    (written,) = re.findall(r"<!-- capacity -->\n\n(.*?)\n\n<!-- end -->", text, re.DOTALL)
    assert written == markdown(list(powers_of_ten(Demand(10))))
    assert invoke(app, "--markdown").stdout.strip() == written


def test_a_program_gets_the_constants_too():
    """One object for each number of speakers."""
    (told,) = map(json.loads, invoke(app, 300, "--json").stdout.splitlines())
    assert (told["demand"]["speakers"], told["constants"]) == (300, CONSTANTS)


def test_an_engine_that_was_not_measured_is_refused():
    """Its line says which were."""
    done = invoke(app, "--engine", "large-v3")
    assert (done.returncode, "tiny.en, base" in done.stderr) == (2, True)
