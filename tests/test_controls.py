"""A control taken out is noticed, and so is a test that proves nothing (`support.controls`)."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support import removals
from support.checkout import ROOT, Checkout
from support.removals import Control, Edit, RemovalError, Verdict

COMMAND = [sys.executable, "-m", "support.controls"]
TABLE = removals.load()
RULE = Edit("rule.py", "LIMIT = 10", "LIMIT = 11")


def controls(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(  # noqa: S603 - a script of ours
        [*COMMAND, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT / "tests")},
    )


def test_what_is_taken_out_is_there_once_and_so_are_the_tests():
    """The table follows the code: a removal that no longer fits is noticed at once."""
    found = {
        (control.id, edit.old): (ROOT / edit.file).read_text().count(edit.old)
        for control in TABLE
        for edit in control.edits
    }
    assert {edit: times for edit, times in found.items() if times != 1} == {}
    named = {test for control in TABLE for test in control.tests}
    assert {test for test in named if not is_there(*test.split("::"))} == set()


def is_there(file: str, name: str = "") -> bool:
    """Tell whether a test file exists, with the test that is named."""
    path = ROOT / file
    return path.is_file() and (not name or f"def {name}(" in path.read_text())


@pytest.mark.parametrize(
    ("table", "problem"),
    [
        ('[[control]]\nid = "a"\nremove = []\ntests = []\n', "requirement"),
        (2 * '[[control]]\nid = "a"\nrequirement = ""\nremove = []\ntests = []\n', "twice: a"),
    ],
    ids=["a field is missing", "an id is there twice"],
)
def test_a_wrong_table_is_told(tmp_path: Path, table: str, problem: str):
    """With what is wrong."""
    path = tmp_path / "controls.toml"
    path.write_text(table)
    with pytest.raises(RemovalError, match=problem):
        removals.load(path)


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    """A rule, a test that proves it, one that does not, and one that is not for every run."""
    (tmp_path / "pyproject.toml").write_text(
        '[tool.pytest.ini_options]\npythonpath = ["."]\nmarkers = ["full"]\n'
    )
    (tmp_path / "rule.py").write_text("LIMIT = 10\n")
    (tmp_path / "test_rule.py").write_text(
        "import pytest, rule\n\ndef test_proof():\n    assert rule.LIMIT == 10\n\n"
        "def test_no_proof():\n    assert rule.LIMIT > 0\n\n"
        "@pytest.mark.full\ndef test_full_size():\n    assert rule.LIMIT == 10\n"
    )
    return Checkout(tmp_path)


@pytest.mark.pipeline
@pytest.mark.parametrize(
    ("tests", "verdict"),
    [
        (["test_proof"], Verdict.NOTICED),
        (["test_no_proof"], Verdict.UNNOTICED),
        (["test_proof", "test_no_proof"], Verdict.UNNOTICED),
        (["test_that_is_not_there"], Verdict.BROKEN),
        (["test_full_size"], Verdict.BROKEN),
    ],
)
def test_each_test_must_notice(checkout: Checkout, tests: list[str], verdict: Verdict):
    """One that passes without the rule is told, and so is one that does not run."""
    control = Control("rule", "", (RULE,), tuple(f"test_rule.py::{test}" for test in tests))
    assert removals.try_without(checkout, control) is verdict
    assert (checkout.root / "rule.py").read_text() == "LIMIT = 10\n"


@pytest.mark.pipeline
@pytest.mark.parametrize(
    "left", ["LIMIT = RULE", "LIMIT = (", "import no_such_module"], ids=["name", "syntax", "import"]
)
def test_code_that_does_not_run_proves_nothing(checkout: Checkout, left: str):
    """Any test would fail of it, whatever it claims."""
    (checkout.root / "test_rule.py").write_text(
        "def test_proof():\n    import rule\n    assert rule.LIMIT == 10\n"
    )
    control = Control("rule", "", (Edit("rule.py", "LIMIT = 10", left),), ("test_rule.py",))
    assert removals.try_without(checkout, control) is Verdict.BROKEN


def test_a_removal_that_does_not_fit_is_told(checkout: Checkout):
    """And nothing is changed."""
    control = Control("rule", "", (RULE, Edit("rule.py", "LIMIT = 12", "")), ("test_rule.py",))
    with pytest.raises(RemovalError, match="expected once, found 0 times"):
        removals.try_without(checkout, control)
    assert (checkout.root / "rule.py").read_text() == "LIMIT = 10\n"


@pytest.mark.pipeline
def test_an_unknown_id_is_a_wrong_usage():
    """One line, and exit code 2."""
    done = controls("no-such-control")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "controls: no control has this id: no-such-control\n"


@pytest.mark.full
@pytest.mark.timeout(3600)
def test_every_control_that_is_taken_out_is_noticed():
    """All of the table, each in turn, in a copy."""
    done = controls()
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith(f"{len(TABLE)} of {len(TABLE)} removals were noticed\n")
