"""`scripts/overhead.py`: what it compares is what it says, and how it judges."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from overhead import Exit, exit_code
from pipeline_tools.overhead.gateway import Variant
from pipeline_tools.overhead.measure import Comparison, Load, Resting, compare, measure

SCRIPT = Path(__file__).parent.parent / "scripts" / "overhead.py"
RESTING = Resting(idle_ms_per_second=2.0, look_ms=5.0)
SMALL = Load(message_bytes=3_200, seconds=1.0, megabytes=0.2, clients=2)


def test_variants_are_compared_within_each_round():
    """A round that was slow for all changes nothing; the figures are medians of the rounds."""
    rounds = [
        {Variant.BARE: 1.0, Variant.WATCHED: 1.1},
        {Variant.BARE: 4.0, Variant.WATCHED: 4.4},
        {Variant.BARE: 2.0, Variant.WATCHED: 2.0},
    ]
    resting = {Variant.BARE: Resting(1.0, 4.0), Variant.WATCHED: RESTING}
    bare, watched = compare(rounds, megabytes=100, resting=resting)
    assert bare == Comparison(Variant.BARE, Resting(1.0, 4.0), 20.0, 0.0, 0.0, 0.0, 0.0)
    assert watched.resting == RESTING
    assert (watched.ms_per_megabyte, watched.least) == (20.0, 0.0)
    assert (watched.change, watched.most) == pytest.approx((0.1, 0.1))
    assert watched.error == pytest.approx(0.1 / 3)


@pytest.mark.parametrize(("change", "code"), [(0.049, Exit.WITHIN), (0.051, Exit.BEYOND)])
def test_the_gateway_as_it_is_is_judged_in_its_worst_size(change, code):
    """What exporting costs is told, and not judged."""
    found = {
        Load(size, 1, 1, 1): (
            Comparison(Variant.WATCHED, RESTING, 1, worst, 0, 0, 0),
            Comparison(Variant.EXPORTED, RESTING, 1, 0.5, 0, 0, 0),
        )
        for size, worst in ((640, change), (3_200, 0.01))
    }
    assert exit_code(found, limit_percent=5) is code


def test_a_load_is_made_of_whole_messages_and_utterances():
    """A second of audio in messages of a tenth, twice for each of two clients."""
    load = Load(message_bytes=3_200, seconds=1.0, megabytes=0.12, clients=2)
    assert (load.utterance_bytes, load.utterances, load.streamed_megabytes) == (32_000, 2, 0.128)
    message_on_the_wire = 8 + 3_200  # RFC 6455 section 5.2: length in 16 bits, a mask
    assert len(load.frames()) == 10 * message_on_the_wire + 6 + len('{"event":"done"}')


@pytest.mark.pipeline
@pytest.mark.timeout(120)
def test_the_gateways_differ_in_what_is_compared(tmp_path):
    """The bare one logs nothing; the others a line for each utterance, counted or not."""
    found = measure(list(Variant), [SMALL], rounds=1, folder=tmp_path)
    (comparisons,) = found.values()
    assert [each.variant for each in comparisons] == list(Variant)
    assert min(each.ms_per_megabyte for each in comparisons) > 0
    lines = {
        variant: [
            json.loads(line)["event"]
            for line in (tmp_path / f"{variant}.log").read_text().splitlines()
        ]
        for variant in Variant
    }
    all_of_them = ["session"] * (SMALL.clients * (1 + SMALL.utterances))
    assert lines == {
        Variant.BARE: [],
        Variant.WATCHED: all_of_them,
        Variant.EXPORTED: all_of_them,
    }


@pytest.mark.pipeline
@pytest.mark.timeout(120)
def test_the_script_tells_figures_and_judges(tmp_path):
    """A table for people, all of it as JSON, and an exit code by the limit."""
    report = tmp_path / "report.json"
    options = ["--message-bytes", "3200", "--seconds", "1", "--megabytes", "0.1", "--rounds", "1"]
    done = subprocess.run(  # noqa: S603 - our own script
        [sys.executable, str(SCRIPT), *options, "--limit", "1000", "--json", str(report)],
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert all(variant in done.stdout for variant in Variant)
    told = json.loads(report.read_text())
    assert told["rounds"] == 1
    (load,) = told["loads"]
    assert load["message_bytes"] == 3_200
    assert [each["variant"] for each in load["gateways"]] == list(Variant)
