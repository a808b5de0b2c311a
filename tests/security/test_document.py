"""`docs/security.md` claims only what is there: a control has a test, and a test is a file."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "security.md").read_text()
CONTROLS = TEXT.partition("## Controls and their tests")[2].partition("\n## ")[0]
POLICY = (ROOT / "tests" / "security" / "test_container_policy.py").read_text()


def test_every_control_has_a_test_that_exists():
    """The last column of each row names test files of this repository, all of which are there."""
    rows = [line.split(" | ")[-1] for line in CONTROLS.splitlines() if line.startswith("| ")][2:]
    tests = [re.findall(r"`([\w/-]+/test_\w+\.py)`", row) for row in rows]
    assert len(tests) > 10
    assert [] not in tests
    assert [name for names in tests for name in names if not (ROOT / name).is_file()] == []


def test_the_recommendations_that_are_named_are_those_that_are_tested():
    """The numbers of the CIS benchmark in the text are those that the tests' docstrings name."""
    named = " ".join(re.findall(r'^    """((?:[45]\.\d+(?:, |:))+)', POLICY, re.MULTILINE))
    tested = {tuple(map(int, each)) for each in re.findall(r"([45])\.(\d+)", named)}
    assert len(tested) >= 20
    table = TEXT.partition("| section | recommendations |")[2].partition("\n\n")[0]
    told = set()
    for first, last in re.findall(r"([45]\.\d+)(?: to ([45]\.\d+))?", table):
        section, begin = map(int, first.split("."))
        end = int((last or first).split(".")[1])
        told |= {(section, number) for number in range(begin, end + 1)}
    assert told == tested
