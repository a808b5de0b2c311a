"""Take one control out of a copy of the checkout, and see whether its tests notice.

Used by `controls.py`, which reads what to take out from `tests/controls.toml`. A test that passes
without the control that it is said to prove proves nothing.
"""

import os
import signal
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from pipeline_tools.checkout import ROOT, Checkout

TABLE = ROOT / "tests" / "controls.toml"
RUN_SECONDS = 300
_SOURCES = ("speech-lib/src", "services/gateway/src", "services/asr/src")
_PASSED, _FAILED = 0, 1


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


class Verdict(StrEnum):
    """What came of a removal."""

    NOTICED = "noticed"
    UNNOTICED = "UNNOTICED"
    BROKEN = "BROKEN"
    """The tests did not run, so nothing is known."""


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


def select(controls: Sequence[Control], ids: Sequence[str]) -> tuple[Control, ...]:
    """Return the controls with these ids; all where none is named.

    Raises:
        RemovalError: There is no such id.
    """
    if unknown := set(ids) - {control.id for control in controls}:
        raise RemovalError(f"no control has this id: {', '.join(sorted(unknown))}")
    return tuple(each for each in controls if not ids or each.id in ids)


def all_pass(checkout: Checkout, controls: Sequence[Control]) -> bool:
    """Tell whether the tests pass while every control is there."""
    tests = dict.fromkeys(test for control in controls for test in control.tests)
    return _run(checkout, tuple(tests)) == _PASSED


def try_without(checkout: Checkout, control: Control) -> Verdict:
    """Take the control out, run its tests, put it back.

    Raises:
        RemovalError: What is to be taken out is not there.
    """
    files = {edit.file for edit in control.edits}
    kept = {file: (checkout.root / file).read_bytes() for file in files}
    try:
        for edit in control.edits:
            edit.apply(checkout.root)
        return _verdict([_run(checkout, (test,)) for test in control.tests])
    finally:
        for file, content in kept.items():
            (checkout.root / file).write_bytes(content)


def _verdict(codes: Sequence[int]) -> Verdict:
    """Judge by pytest's exit codes: each test that is named must notice."""
    if set(codes) <= {_PASSED, _FAILED}:
        return Verdict.NOTICED if _PASSED not in codes else Verdict.UNNOTICED
    return Verdict.BROKEN


def _run(checkout: Checkout, tests: Sequence[str]) -> int:
    """Run tests in the checkout, against its own sources; return pytest's exit code."""
    sources = os.pathsep.join(str(checkout.root / each) for each in _SOURCES)
    command = [sys.executable, "-m", "pytest", "-qx", "-p", "no:cacheprovider", "-m", "", *tests]
    with subprocess.Popen(  # noqa: S603 - tests of this repository
        command,
        cwd=checkout.root,
        env={**os.environ, "PYTHONPATH": sources, "PYTHONDONTWRITEBYTECODE": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as running:
        try:
            return running.wait(RUN_SECONDS)
        except subprocess.TimeoutExpired:
            running.send_signal(signal.SIGINT)  # so that it stops what it has started
            return running.wait(RUN_SECONDS)
