"""Take one control out of a copy of the checkout, and see whether its tests notice.

`tests/controls.toml` names what to take out, and the tests. A test that passes without the control
that it is said to prove proves nothing.
"""

import os
import re
import signal
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from support.checkout import ROOT, Checkout

TABLE = ROOT / "tests" / "controls.toml"
RUN_SECONDS, SECONDS_A_TEST = 300, 20
_SOURCES = ("speech-lib/src", "services/gateway/src", "services/asr/src", "tools/src")
_DOES_NOT_RUN = re.compile(
    r"\b(?:Name|UnboundLocal|Syntax|Indentation|Import|ModuleNotFound)Error\b"
)
"""In the report of pytest or the log of a service: the removal has left code that cannot run."""


class RemovalError(ValueError):
    """The table, or an id from it, is not as it should be; the text says what is wrong."""


@dataclass(frozen=True, slots=True)
class Edit:
    """What is replaced in one file: `old`, which must be there exactly once, by `new`."""

    file: str
    old: str
    new: str

    def apply(self, root: Path) -> None:
        """Change the file.

        Raises:
            RemovalError: `old` is not there exactly once.
        """
        path = root / self.file
        text = path.read_text()
        if (found := text.count(self.old)) != 1:
            raise RemovalError(f"{self.file}: expected once, found {found} times: {self.old!r}")
        path.write_text(text.replace(self.old, self.new))


@dataclass(frozen=True, slots=True)
class Control:
    """A requirement, how to take out what fulfils it, and the tests that notice."""

    id: str
    requirement: str
    edits: tuple[Edit, ...]
    tests: tuple[str, ...]


class Verdict(Enum):
    """What came of a removal; of several tests the first of these counts."""

    BROKEN = "the tests, or the code without the control, did not run: nothing is known"
    UNNOTICED = "a test passed without the control"
    NOTICED = "each test noticed"


def load(table: Path = TABLE) -> tuple[Control, ...]:
    """Return the controls in their order.

    Raises:
        RemovalError: A row has other fields than it should, or an id is there twice.
    """
    rows = tomllib.loads(table.read_text())["control"]
    try:
        controls = tuple(_control(**row) for row in rows)
    except TypeError as error:
        raise RemovalError(f"{table.name}: {error}") from None
    ids = [control.id for control in controls]
    if twice := {each for each in ids if ids.count(each) > 1}:
        raise RemovalError(f"{table.name}: there twice: {', '.join(sorted(twice))}")
    return controls


def _control(
    *,
    id: str,  # noqa: A002 - the table's word
    requirement: str,
    remove: Sequence[dict[str, str]],
    tests: Sequence[str],
) -> Control:
    return Control(id, requirement, tuple(Edit(**each) for each in remove), tuple(tests))


def all_pass(checkout: Checkout, controls: Sequence[Control]) -> bool:
    """Tell whether the tests pass while every control is there."""
    tests = dict.fromkeys(test for control in controls for test in control.tests)
    return _run(checkout, *tests) is Verdict.UNNOTICED


def try_without(checkout: Checkout, control: Control) -> Verdict:
    """Take the control out, run its tests, put it back; each of them must notice.

    Raises:
        RemovalError: What is to be taken out is not there.
    """
    files = {edit.file for edit in control.edits}
    kept = {file: (checkout.root / file).read_bytes() for file in files}
    try:
        for edit in control.edits:
            edit.apply(checkout.root)
        verdicts = {_run(checkout, test) for test in control.tests}
        return next(each for each in Verdict if each in verdicts)
    finally:
        for file, content in kept.items():
            (checkout.root / file).write_bytes(content)


def _run(checkout: Checkout, *tests: str) -> Verdict:
    """Run tests in the checkout, against its own sources, at the sizes of every run."""
    sources = os.pathsep.join(str(checkout.root / each) for each in _SOURCES)
    options = ["-qx", "--tb=short", "-p", "no:cacheprovider", "-m", "not full"]
    with subprocess.Popen(  # noqa: S603 - tests of this repository
        [sys.executable, "-m", "pytest", *options, *tests],
        cwd=checkout.root,
        env={**os.environ, "PYTHONPATH": sources, "PYTHONDONTWRITEBYTECODE": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as running:
        try:
            output, _ = running.communicate(timeout=RUN_SECONDS + SECONDS_A_TEST * len(tests))
        except subprocess.TimeoutExpired:
            running.send_signal(signal.SIGINT)  # so that it stops what it has started
            output, _ = running.communicate(timeout=RUN_SECONDS)
    match running.returncode:
        case 0:
            return Verdict.UNNOTICED
        case 1 if not _DOES_NOT_RUN.search(output):
            return Verdict.NOTICED
        case _:
            return Verdict.BROKEN
