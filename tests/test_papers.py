"""The papers claim only what is there: every test that they name exists."""

import re
from pathlib import Path

import pytest
from support import removals
from support.checkout import ROOT, files

GUIDES = ["README.md", "docs/operations.md", "docs/protocol.md", "docs/security.md"]
HISTORY = Path("CHANGELOG.md")
WRITTEN = [path for path in files() if path.suffix == ".md" and path != HISTORY]
NAMED_TEST = re.compile(r"`((?:[\w.-]+/)*tests/[\w./-]*?(?:\.py|/))(?:::(\w+))?`")
MATRIX_ROW = re.compile(r"^\| `([a-z]+-[\w.-]+)` \|", re.MULTILINE)
QA = ROOT / "agent-output" / "qa" / "005-ingress-gateway-qa.md"


def is_there(file: str, test: str) -> bool:
    """Tell whether a test file, and a test in it where one is named, exist."""
    path = ROOT / file
    return path.exists() and (not test or f"def {test}(" in path.read_text())


@pytest.mark.parametrize("path", WRITTEN, ids=str)
def test_every_test_that_is_named_exists(path: Path):
    """A file, and where a test in it is named, that one."""
    named = NAMED_TEST.findall((ROOT / path).read_text())
    assert [each for each in named if not is_there(*each)] == []


def test_some_tests_are_named():
    """So that the search above finds them."""
    assert len(NAMED_TEST.findall(QA.read_text())) > 50


def test_the_matrix_has_a_row_for_each_control_that_can_be_taken_out():
    """In the order of the table of removals, each once."""
    rows = MATRIX_ROW.findall(QA.read_text())
    assert rows == [control.id for control in removals.load()]


@pytest.mark.parametrize("guide", GUIDES)
def test_every_guide_says_trusted_network_only(guide: str):
    """Whoever reads one guide alone is told."""
    assert "> **Trusted network only.**" in (ROOT / guide).read_text()
