"""The command `speech`: its help, its completion, what it loads, and how signals end it."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from pathlib import Path

import pytest
from speech_tools import __version__
from speech_tools.bench.servers import NEEDS_A_GATEWAY
from speech_tools.cli import COMMANDS
from speech_tools.command_line import NO_PLOTS
from speech_tools.stack import NEEDS_A_CHECKOUT
from support.scripted_gateway import Visit, scripted
from support.waiting import until

ROOT = Path(__file__).parents[2]
SPEECH = [sys.executable, "-m", "speech_tools"]
RAW = str(ROOT / "samples" / "go-forward-ten-meters.raw")
SECONDS = 60


def speech(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run the command to its end, as in a terminal of 80 columns."""
    return subprocess.run(  # noqa: S603 - our own command
        [*SPEECH, *arguments],
        check=False,
        capture_output=True,
        text=True,
        env=os.environ | {"COLUMNS": "80", "TERM": "dumb"} | env,
        timeout=SECONDS,
    )


# What it says of itself


def test_it_tells_its_version():
    """`python -m speech_tools` is the same command."""
    assert speech("--version").stdout == f"speech {__version__}\n"


def test_an_unknown_subcommand_is_a_wrong_usage():
    """It is named."""
    done = speech("nosuch")
    assert (done.returncode, done.stdout) == (2, "")
    assert "No such command 'nosuch'" in done.stderr


def test_the_help_has_a_line_for_each_subcommand():
    """Each fits into a terminal of 80 columns, and says what the subcommand does."""
    done = speech("--help")
    listed = [line.strip("│ ") for line in done.stdout.splitlines()]
    assert done.returncode == 0
    for name, (_, what) in COMMANDS.items():
        assert f"{name:{max(map(len, COMMANDS))}}  {what}" in listed


# What it loads

HEAVY = ("aiohttp", "confluent_kafka", "fastavro", "matplotlib", "numpy", "soundfile", "websockets")
SPEAKS = {"numpy", "soundfile", "websockets"}
READS_TOPICS = {"confluent_kafka", "fastavro"}
NEEDED = {
    "demo": SPEAKS | READS_TOPICS,
    "stream": SPEAKS,
    "check": SPEAKS,
    "conformance": {"websockets"},
    "trace": READS_TOPICS,
    "top": {"aiohttp"},
    "load": SPEAKS | {"aiohttp"},
    "latency": SPEAKS | READS_TOPICS,
    "bench": SPEAKS | {"aiohttp", "confluent_kafka"},
    "capacity": set(),
    "models": set(),
}
"""The heavy modules of each subcommand."""
_MODELS = ("checking", "fetching", "manifest", "packages", "screen")
PURE_PART = {
    "demo": {"speech_tools.models", *(f"speech_tools.models.{each}" for each in _MODELS)},
    "latency": {"speech_tools.trace", "speech_tools.trace.tracing"},
}
"""What a subcommand may use of another one: the demo fetches its model, latency reads traces."""


@cache
def loaded(*arguments: str, **env: str) -> tuple[str, set[str]]:
    """Return what the command prints, and the modules that are loaded once it has run."""
    tell = (
        "import atexit, json, os, sys; "
        "atexit.register(lambda: os.write(2, json.dumps([*sys.modules]).encode())); "
        "sys.argv = ['speech', *sys.argv[1:]]; "
        "from speech_tools.cli import main; main()"
    )
    done = subprocess.run(  # noqa: S603 - our own command
        [sys.executable, "-c", tell, *arguments],
        check=False,
        capture_output=True,
        text=True,
        env=os.environ | env,
        timeout=SECONDS,
    )
    return done.stdout, set(json.loads(done.stderr))


COMPLETES = {"_SPEECH_COMPLETE": "complete_bash", "COMP_WORDS": "speech ", "COMP_CWORD": "1"}


@pytest.mark.parametrize(
    ("arguments", "env"),
    [(["--help"], {}), (["--version"], {}), ([], COMPLETES)],
    ids=["help", "version", "completion"],
)
def test_the_list_of_subcommands_loads_none_of_them(arguments, env):
    """It comes at once."""
    _, modules = loaded(*arguments, **env)
    assert "speech_tools.cli" in modules
    assert modules & {*HEAVY, *(module for module, _ in COMMANDS.values())} == set()


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_explains_every_exit_code(name):
    """What it ends with says what to do next."""
    said = loaded(name, "--help")[0].splitlines()
    codes = import_module(COMMANDS[name][0]).Exit
    assert [code for code in codes if not any(f" {code}  " in line for line in said)] == []


def room(module: str) -> str:
    """Return the part of the tools that a module belongs to."""
    return ".".join(module.split(".")[:2])


@pytest.mark.parametrize("name", COMMANDS)
def test_a_subcommand_says_of_itself_what_the_list_says(name):
    """Its help begins with the same sentence."""
    said = " ".join(loaded(name, "--help")[0].split())
    assert f"Usage: speech {name} " in said
    assert COMMANDS[name][1] in said


@pytest.mark.parametrize("name", COMMANDS)
def test_a_subcommand_loads_no_other_one(name):
    """Nor any heavy module that only others need."""
    _, modules = loaded(name, "--help")
    others = {room(module) for each, (module, _) in COMMANDS.items() if each != name}
    inside = {each for each in modules if room(each) in others}
    assert inside == PURE_PART.get(name, set())
    assert modules & set(HEAVY) == NEEDED[name]


# Completion


@pytest.mark.pipeline
@pytest.mark.skipif(not shutil.which("bash"), reason="needs bash")
@pytest.mark.parametrize(
    ("words", "offered"),
    [("st", ["stream"]), ("", [*COMMANDS]), ("stream --fa", ["--fast"])],
)
def test_bash_completes_subcommands_and_options(words, offered):
    """With the script that `--show-completion` prints."""
    typed = ["speech", *words.split(" ")]
    script = f"""
        eval "$(speech --show-completion bash)"
        COMP_WORDS=({" ".join(word or "''" for word in typed)}) COMP_CWORD={len(typed) - 1}
        _speech_completion speech
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(  # noqa: S603 - our own command
        ["bash", "-c", script],  # noqa: S607 - every system's own
        check=True,
        capture_output=True,
        text=True,
        env=os.environ | {"PATH": path},
        timeout=SECONDS,
    )
    assert done.stdout.split() == offered


# How it ends


@pytest.mark.parametrize(
    ("missing", "arguments", "line"),
    [
        ("speech_lib.testing", ["demo"], NEEDS_A_CHECKOUT),
        ("speech_lib.testing", ["latency", "--embedded"], NEEDS_A_CHECKOUT),
        ("speech_lib.testing", ["bench", "--embedded"], NEEDS_A_CHECKOUT),
        ("speech_gateway", ["bench"], NEEDS_A_GATEWAY),
        ("matplotlib", ["latency", "--out", "not/made"], NO_PLOTS),
    ],
    ids=["demo", "latency --embedded", "bench --embedded", "bench", "latency --out"],
)
def test_what_is_not_installed_is_told_in_one_line(missing, arguments, line, tmp_path):
    """With what installs it, before anything starts; an image holds neither."""
    without = (
        f"import sys; sys.modules[{missing!r}] = None; from speech_tools.cli import main; main()"
    )
    done = subprocess.run(  # noqa: S603 - our own command
        [sys.executable, "-c", without, *arguments],
        check=False,
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=SECONDS,
    )
    assert (done.returncode, done.stdout, done.stderr) == (2, "", f"{arguments[0]}: {line}\n")
    assert [*tmp_path.iterdir()] == []


def as_from_a_terminal(*arguments: str) -> "subprocess.Popen[str]":
    """Start the command so that it sees Ctrl-C: shells let what is in the background ignore it."""
    return subprocess.Popen(  # noqa: S603 - our own command
        ["env", "--default-signal=INT", *SPEECH, *arguments],  # noqa: S607 - every system's own
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@contextmanager
def gateway_that_never_answers() -> Iterator[tuple[str, threading.Event]]:
    """Yield its URL, and what is set once it has heard a client."""
    heard = threading.Event()

    def script(visit: Visit) -> None:
        visit.greet()
        visit.hear(chunks=1)
        heard.set()
        visit.hear()

    with scripted(script) as (url, _):
        yield url, heard


@pytest.mark.pipeline
@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["stream", RAW], "stream: interrupted: nothing is stored, and what follows is not\n"),
        (["load", "--clients", "2"], ""),
    ],
    ids=["stream", "load"],
)
def test_ctrl_c_ends_it_with_130(arguments, line):
    """And without more than a word on stderr."""
    with (
        gateway_that_never_answers() as (url, heard),
        as_from_a_terminal(*arguments, "--url", url) as process,
    ):
        assert heard.wait(SECONDS)
        process.send_signal(signal.SIGINT)
        _, complaints = process.communicate(timeout=SECONDS)
    assert (process.returncode, complaints) == (130, line)


def children(pid: int) -> list[int]:
    return [*map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())]


@pytest.mark.pipeline
@pytest.mark.skipif(not Path("/proc/self").exists(), reason="looks for processes in /proc: Linux")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("command", ["latency", "bench"])
def test_a_signal_stops_what_it_has_started(command, number, code):
    """Nothing of an embedded pipeline is left, and nothing is said."""
    with as_from_a_terminal(command, "--embedded") as process:
        # Broker and registry, gateway, and a recogniser or bare servers.
        started = until(
            lambda: children(process.pid), lambda found: len(found) >= 3, seconds=SECONDS
        )
        process.send_signal(number)
        _, complaints = process.communicate(timeout=SECONDS)
    assert (process.returncode, complaints) == (code, "")
    assert [pid for pid in started if Path(f"/proc/{pid}").exists()] == []
