"""Each reader of foreign bytes under inputs that its own coverage leads to (`support.fuzz`).

`--fuzz-seconds` says how long. An input that breaks a target is printed: put it among its seeds,
which every quick run tries.
"""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from support.checkout import ROOT
from support.fuzz.targets import TARGETS, Target

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


@pytest.fixture
def fuzz(tmp_path, monkeypatch, pytestconfig):
    """Look for an input that breaks a target; return what libFuzzer did and said."""
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{ROOT / 'tests'}")

    def run(module: str, name: str, target: Target) -> "subprocess.CompletedProcess[str]":
        corpus = tmp_path / "corpus"
        corpus.mkdir()
        for number, seed in enumerate(target.seeds):
            (corpus / f"seed-{number}").write_bytes(seed)
        seconds = pytestconfig.getoption("--fuzz-seconds")
        options = [f"-max_total_time={seconds}", "-timeout=5", "-rss_limit_mb=1024"]
        options += [f"-max_len={target.longest}", "-print_final_stats=1", str(corpus)]
        return subprocess.run(  # noqa: S603 - our own module
            [sys.executable, "-m", "support.fuzz", module, name, *options],
            cwd=tmp_path,  # where libFuzzer leaves an input that breaks it
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            check=False,
            timeout=seconds + 60,
        )

    return run


@pytest.mark.parametrize("name", TARGETS)
def test_a_target_takes_what_it_begins_with(name):
    """Good and bad seeds pass without any engine: a target that fails them tells nothing."""
    for seed in TARGETS[name].seeds:
        TARGETS[name].run(seed)


@needs_atheris
@pytest.mark.full
@pytest.mark.timeout(0)  # as long as it is told
@pytest.mark.parametrize("name", TARGETS)
def test_no_input_breaks_a_reader(fuzz, name):
    """Thousands of inputs a second, each taken or refused as the reader's documentation says."""
    done = fuzz("support.fuzz.targets", name, TARGETS[name])
    assert done.returncode == 0, done.stdout
    (runs,) = map(int, re.findall(r"number_of_executed_units: +(\d+)", done.stdout))
    branches = max(map(int, re.findall(r"cov: (\d+)", done.stdout)))
    print(f"{name}: {runs} inputs through {branches} branches")  # noqa: T201 - seen with -rP
    assert min(runs, branches) > 10


@needs_atheris
@pytest.mark.full
def test_a_fault_that_no_chance_would_find_is_found_and_told(fuzz, tmp_path: Path):
    """Coverage leads to three bytes in a row; the input is printed, and kept in a file."""
    (tmp_path / "planted.py").write_text(PLANTED)
    done = fuzz("planted", "planted", Target("", lambda _: None, (b"",), longest=8))
    assert done.returncode != 0
    assert "IndexError: planted" in done.stdout
    (kept,) = re.findall(r"Test unit written to (\S+)", done.stdout)
    assert (tmp_path / kept).read_bytes()[:3] == b"RIF"
