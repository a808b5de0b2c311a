"""Each reader of foreign bytes under inputs that its own coverage leads to (`support.fuzz`)."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest
from support.fuzz import __main__ as fuzz
from support.fuzz.targets import TARGETS, Target

TESTS = Path(__file__).parents[1]
needs_atheris = pytest.mark.skipif(
    importlib.util.find_spec("atheris") is None,
    reason="needs atheris: on Linux and x86-64 `scripts/test --full` installs it",
)
PLANTED = """
from support.fuzz.targets import Target

def run(data):
    if data[:1] == b"R":
        if data[1:2] == b"I":
            if data[2:3] == b"F":
                raise IndexError("planted")

TARGETS = {"planted": Target("a fault behind three conditions", run, (b"",), longest=8)}
"""


def run_script(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the script to its end."""
    return subprocess.run(  # noqa: S603 - our own script
        [sys.executable, "-m", "support.fuzz", *arguments],
        cwd=TESTS,
        check=False,
        capture_output=True,
        text=True,
        timeout=100,
    )


@pytest.mark.parametrize("name", TARGETS)
def test_a_target_takes_what_it_begins_with(name):
    """Good and bad seeds pass without any engine: a target that fails them tells nothing."""
    for seed in TARGETS[name].seeds:
        TARGETS[name].run(seed)


@needs_atheris
@pytest.mark.full
@pytest.mark.timeout(120)
@pytest.mark.parametrize("name", TARGETS)
def test_no_input_breaks_a_reader(name, tmp_path):
    """Thousands of inputs a second, each taken or refused as the reader's documentation says."""
    done = run_script(name, "--seconds", "10", "--findings", str(tmp_path))
    assert (done.returncode, done.stderr, list(tmp_path.iterdir())) == (0, "", [])
    assert done.stdout.startswith(f"{name}: nothing broke it (")
    assert min(int(number) for number in re.findall(r"\d+", done.stdout)) > 10


@needs_atheris
@pytest.mark.full
def test_a_fault_that_no_chance_would_find_is_found_and_kept(tmp_path, monkeypatch, capsys):
    """Coverage leads to three bytes in a row; the input is kept, and breaks it once more."""
    (tmp_path / "planted_targets.py").write_text(PLANTED)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    plan = fuzz.Hunt(seconds=30, corpus=tmp_path / "corpus", findings=tmp_path / "findings")
    target = Target("", lambda _: None, (b"",))
    found = fuzz.hunt("planted", target, plan, "planted_targets")
    assert fuzz.report("planted", found) is fuzz.Exit.BROKEN
    said = capsys.readouterr().err
    assert "IndexError: planted" in said
    assert said.splitlines()[-1].endswith(f"the input is in {found.kept}")
    assert found.kept.read_bytes()[:3] == b"RIF"
    again = fuzz.try_again("planted", found.kept, "planted_targets")
    assert (again.broken, again.kept) == (True, None)


@needs_atheris
@pytest.mark.full
def test_one_input_can_be_tried_again(tmp_path):
    """A finding that is mended passes, with exit code 0."""
    (tmp_path / "input").write_bytes(b'{"event":"done"}')
    done = run_script("message", "--input", str(tmp_path / "input"))
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.security
def test_without_its_engine_one_line_says_so():
    """Where atheris is not installed, nothing else is tried."""
    without = (
        "import runpy, sys; sys.modules['atheris'] = None; "
        "sys.argv = ['fuzz', 'message']; runpy.run_module('support.fuzz', run_name='__main__')"
    )
    done = subprocess.run(  # noqa: S603 - our own script
        [sys.executable, "-c", without],
        cwd=TESTS,
        check=False,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert (done.returncode, done.stderr) == (fuzz.Exit.NO_ENGINE, f"{fuzz.NO_ENGINE}\n")


@pytest.mark.security
@pytest.mark.parametrize("arguments", [["nothing"], ["message", "--seconds", "0"], []])
def test_wrong_usage_ends_with_2(arguments):
    """Before anything is tried."""
    done = run_script(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
