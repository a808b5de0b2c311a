"""The papers claim only what is there: the tests that they name, and themselves."""

import re
from pathlib import Path

import pytest
from pipeline_tools import removals

ROOT = Path(__file__).parent.parent
PAPERS = [
    "analysis/005-ingress-gateway-analysis.md",
    "architecture/006-tts-voice-cloning-architecture-findings.md",
    "architecture/system-architecture.md",
    "critiques/005-ingress-gateway-plan-critique.md",
    "planning/005-ingress-gateway-plan.md",
    "qa/005-ingress-gateway-qa.md",
    "security/005-ingress-gateway-security-pre-implementation.md",
    "uat/005-ingress-gateway-uat.md",
]
GUIDES = ["README.md", "docs/operations.md", "docs/protocol.md", "docs/security.md"]
WRITTEN = [
    ROOT / "roadmap" / "product-roadmap.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *(ROOT / "agent-output" / paper for paper in PAPERS),
]
NAMED_TEST = re.compile(r"`((?:[\w.-]+/)*tests/[\w./-]*?(?:\.py|/))(?:::(\w+))?`")
MATRIX_ROW = re.compile(r"^\| `([a-z]+-[\w.-]+)` \|", re.MULTILINE)
QA = ROOT / "agent-output" / "qa" / "005-ingress-gateway-qa.md"


def is_there(file: str, test: str) -> bool:
    """Tell whether a test file, and a test in it where one is named, exist."""
    path = ROOT / file
    return path.exists() and (not test or f"def {test}(" in path.read_text())


def test_the_papers_that_the_plan_links_are_there():
    """At their very paths, and none besides them."""
    found = (ROOT / "agent-output").rglob("*.md")
    assert sorted(str(path.relative_to(ROOT / "agent-output")) for path in found) == PAPERS


@pytest.mark.parametrize("path", WRITTEN, ids=lambda path: path.name)
def test_every_test_that_is_named_exists(path: Path):
    """A file, and where a test in it is named, that one."""
    named = NAMED_TEST.findall(path.read_text())
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


def test_the_changelog_tells_of_the_gateway():
    """Under what is added."""
    added = (ROOT / "CHANGELOG.md").read_text().partition("### Added")[2]
    assert "- The ingress gateway:" in added


def test_the_roadmap_checks_off_the_websocket_alone():
    """The other protocol is a follow-up of its own, and open."""
    text = (ROOT / "roadmap" / "product-roadmap.md").read_text()
    assert "- [x] Epic 1.5 Ingress gateway, phase 1: WebSocket" in text
    assert "- [ ] Epic 1.5b Ingress gateway, phase 2: gRPC" in text
