"""Each control of `tests/controls.toml`, taken out of a copy of the checkout, is noticed.

pytest -m full tests/test_controls.py [-k ID]
"""

import re
from pathlib import Path

import pytest
from support import checkout as checkouts
from support import removals
from support.checkout import ROOT, Checkout
from support.removals import Control, Edit, RemovalError, Verdict

TABLE = removals.load()
QA = ROOT / "agent-output" / "qa" / "005-ingress-gateway-qa.md"
RULE = Edit("rule.py", "LIMIT = 10", "LIMIT = 11")


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


def test_the_matrix_has_a_row_for_each_control():
    """In the order of the table of removals, each once."""
    rows = re.findall(r"^\| `([a-z]+-[\w.-]+)` \|", QA.read_text(), re.MULTILINE)
    assert rows == [control.id for control in TABLE]


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
        (["test_proof", "test_no_proof"], Verdict.UNNOTICED),
        (["test_full_size"], Verdict.BROKEN),
    ],
)
def test_each_test_must_notice(checkout: Checkout, tests: list[str], verdict: Verdict):
    """One that passes without the rule is told, and so is one that does not run."""
    control = Control("rule", "", (RULE,), tuple(f"test_rule.py::{test}" for test in tests))
    assert removals.try_without(checkout, control) is verdict
    assert (checkout.root / "rule.py").read_text() == "LIMIT = 10\n"


@pytest.mark.pipeline
@pytest.mark.parametrize("left", ["LIMIT = RULE", "LIMIT = ("], ids=["name", "syntax"])
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


@pytest.fixture(scope="module")
def copy(request, tmp_path_factory) -> Checkout:
    """A copy of the repository, in which the tests of the chosen controls pass."""
    copy = checkouts.copy(tmp_path_factory.mktemp("controls"))
    copy.commit("Try it")  # some tests ask git for the files
    mine = [item for item in request.session.items if item.path == request.path]
    chosen = [each.callspec.params["control"] for each in mine if "copy" in each.fixturenames]
    assert removals.all_pass(copy, chosen), "they fail, or are not there, with every control there"
    return copy


@pytest.mark.full
@pytest.mark.timeout(3600)  # the first one waits for all tests to pass
@pytest.mark.parametrize("control", TABLE, ids=lambda control: control.id)
def test_a_control_that_is_taken_out_is_noticed(copy: Checkout, control: Control):
    """Each of its tests fails without it."""
    assert removals.try_without(copy, control) is Verdict.NOTICED
