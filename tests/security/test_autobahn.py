"""RFC 6455 by the Autobahn|Testsuite: docs/conformance.md tells how the gateway does, exactly.

The suite talks to an echo on the gateway's own server (`support.conformance`).
"""

import asyncio
import re

import pytest
from support import autobahn
from support.conformance import DOCUMENT, measure, table

pytestmark = [pytest.mark.security, pytest.mark.timeout(600)]

TEXT = DOCUMENT.read_text(encoding="utf-8")
ROW = re.compile(
    r"^\| (?P<cases>\d[\d., ]*) \| (?P<verdict>[A-Z-]+) \| (?P<code>\d+) \| .+ \|$", re.MULTILINE
)


def documented(verdict):
    """Return the cases that the document expects to end so, each with its close code."""
    return {
        case: int(row["code"])
        for row in ROW.finditer(TEXT)
        if row["verdict"] == verdict
        for case in row["cases"].split(", ")
    }


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """Every case's outcome; the suite runs once."""
    suite = autobahn.find()
    if suite is None:
        pytest.skip(autobahn.MISSING)
    return asyncio.run(measure(suite, tmp_path_factory.mktemp("autobahn")))


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


def test_the_document_counts_what_the_suite_counted(outcomes):
    """Section by section; strict and less than strict as one, for the same reason."""
    assert counts(table(outcomes)) == counts(TEXT)


def counts(text):
    """Return the rows of the table of sections: cases, OK or NON-STRICT, and the other verdicts."""
    rows = {}
    for line in re.findall(r"^\| \d+ [^|]+(?: \| \d+){6} \|$", text, re.MULTILINE):
        section, *numbers = line.strip("| ").split(" | ")
        cases, strict, less, *others = map(int, numbers)
        rows[section] = (cases, strict + less, *others)
    return rows
