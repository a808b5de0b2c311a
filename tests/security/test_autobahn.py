"""RFC 6455 by the Autobahn|Testsuite: docs/conformance.md tells how the gateway does, exactly.

With `--write-conformance` the table of sections there is written anew.
"""

import asyncio
import re
from collections import Counter

import pytest
from support import autobahn
from support.checkout import ROOT

pytestmark = [pytest.mark.security, pytest.mark.timeout(600)]

DOCUMENT = ROOT / "docs" / "conformance.md"
SECTIONS = {
    "1": "framing",
    "2": "pings and pongs",
    "3": "reserved bits",
    "4": "opcodes",
    "5": "fragmentation",
    "6": "UTF-8",
    "7": "closing",
    "10": "automatic fragmentation",
}
"""What is tried. Left out: 9 measures speed with messages up to 16 MB, 12 and 13 compression."""
VERDICTS = ("OK", "NON-STRICT", "INFORMATIONAL", "UNIMPLEMENTED", "FAILED")

TABLE = re.compile(r"(?<=<!-- sections -->\n).*?(?=<!-- end -->)", re.DOTALL)
ROW = re.compile(
    r"^\| (?P<cases>\d[\d., ]*) \| (?P<verdict>[A-Z-]+) \| (?P<code>\d+) \| .+ \|$", re.MULTILINE
)


def documented(verdict):
    """Return the cases that the document expects to end so, each with its close code."""
    return {
        case: int(row["code"])
        for row in ROW.finditer(DOCUMENT.read_text())
        if row["verdict"] == verdict
        for case in row["cases"].split(", ")
    }


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """Every case's outcome; the suite runs once."""
    folder = tmp_path_factory.mktemp("autobahn")
    wstest = autobahn.command(folder)
    if wstest is None:
        pytest.skip(autobahn.MISSING)
    return asyncio.run(autobahn.outcomes(wstest, [f"{each}.*" for each in SECTIONS], folder))


def ended(outcomes, verdict):
    """Return the cases that ended so, each with its close code."""
    return {case: each.code for case, each in outcomes.items() if each.verdict == verdict}


def test_nothing_fails_but_what_is_documented(outcomes):
    """A case that is listed and passes is as wrong as one that is not and fails."""
    assert ended(outcomes, "FAILED") == documented("FAILED")
    assert ended(outcomes, "INFORMATIONAL") == documented("INFORMATIONAL")
    assert ended(outcomes, "UNIMPLEMENTED") == {}


def test_only_what_is_documented_is_less_than_strict(outcomes):
    """Which of these cases are is a race: whether the echo was sent before the violation came."""
    assert ended(outcomes, "NON-STRICT").items() <= documented("NON-STRICT").items()


def test_the_document_counts_what_the_suite_counted(outcomes, pytestconfig):
    """Section by section; strict and less than strict as one, for the same reason."""
    new = table(outcomes)
    if pytestconfig.getoption("--write-conformance"):
        DOCUMENT.write_text(TABLE.sub(lambda _: new, DOCUMENT.read_text(), count=1))
    assert counts(TABLE.search(DOCUMENT.read_text())[0]) == counts(new)


def table(outcomes):
    """Return the table of sections as it stands in the document."""
    lines = [f"| section | cases | {' | '.join(VERDICTS)} |", "| --- |" + " --- |" * 6]
    for section, name in SECTIONS.items():
        found = Counter(v.verdict for case, v in outcomes.items() if case.startswith(f"{section}."))
        cells = [found.total(), *(found[verdict] for verdict in VERDICTS)]
        lines.append(f"| {section} {name} | {' | '.join(map(str, cells))} |")
    return "\n".join([*lines, ""])


def counts(text):
    """Return the rows of the table of sections: cases, OK or NON-STRICT, and the other verdicts."""
    rows = {}
    for line in text.splitlines()[2:]:
        section, *numbers = line.strip("| ").split(" | ")
        cases, strict, less, *others = map(int, numbers)
        rows[section] = (cases, strict + less, *others)
    return rows
